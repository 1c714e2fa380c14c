"""The roster of a run: made once from entries that bear the enrolled names and keys, durable, never another one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from server.secure_sum.roster import Enrolled, RunRoster
from shared.errors import DataError, SettingsError
from shared.secure_sum.entries import Entry, certificate_key_bytes, sign_entry
from shared.secure_sum.keys import PublicKeys, RunKeys
from shared.secure_sum.roster import Numbers
from shared.secure_sum.thresholds import Thresholds

RUN, STUDY = "r-1", "5" * 64
# of order 8, as in RFC 7748's list of points that make every secret zero
SMALL_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")


def numbers(nodes: int) -> Numbers:
    if nodes < 3:
        raise SettingsError("Expected other numbers.")
    return Numbers("masked", Thresholds(nodes, max(3, nodes - 1), 1))


class Applicant:
    def __init__(self, name: str, keys: PublicKeys | None = None) -> None:
        self.name, self.key = name, ec.generate_private_key(ec.SECP384R1())
        self.keys = keys or RunKeys.generate().public
        self.enrolled = Enrolled(name, certificate_key_bytes(self.key.public_key()))

    def entry(self, **changes: Any) -> Entry:
        return replace(sign_entry(RUN, STUDY, self.name, self.keys, self.key), **changes)


def roster_in(folder: Path, **changes: Any) -> RunRoster:
    terms = {
        "numbers": numbers,
        "most": int,
        "begins_with": 3,
        "quorum": 2,
        "file": folder / "sum" / "roster",
    } | changes
    return RunRoster(RUN, STUDY, **terms)


def filled(folder: Path, count: int, **changes: Any) -> tuple[RunRoster, list[Applicant]]:
    made, applicants = roster_in(folder, **changes), [Applicant(f"clinic-{i}") for i in range(count)]
    for one in applicants:
        assert made.take(one.enrolled, one.entry().to_bytes()) == ""
    return made, applicants


@pytest.mark.guarantee("a run's roster is on the disk before its first task leaves, and is never another one.")
def test_a_roster_is_read_again_and_stays(tmp_path: Path) -> None:
    made, applicants = filled(tmp_path, 4)
    assert made.quorum == 3
    fixed = made.fix(one.name for one in applicants)
    again = roster_in(tmp_path)
    assert again.fixed == fixed and again.quorum == 3 and again.fix(["other"]) == fixed
    late = Applicant("late")
    assert again.take(late.enrolled, late.entry().to_bytes()) == "" and not again.has("late")


def test_entries_that_are_not_the_enrolled_nodes_own_do_not_count(tmp_path: Path) -> None:
    made, (first, *_) = filled(tmp_path, 2)
    other, taken = Applicant("other"), Applicant("taken")
    copied = Applicant("copied", first.keys)
    signing = Applicant("signing", PublicKeys(RunKeys.generate().public.exchange, first.keys.signing))
    for node, encoded, why in [
        (other.enrolled, b"", "Expected a message"),
        (other.enrolled, other.entry(name="taken").to_bytes(), "name and the key"),
        (other.enrolled, taken.entry().to_bytes(), "name and the key"),
        (Enrolled("other", first.enrolled.certificate_key), other.entry().to_bytes(), "name and the key"),
        (Enrolled("", b""), other.entry().to_bytes(), "name and the key"),
        (other.enrolled, other.entry(signature=first.entry().signature).to_bytes(), "signed for this run"),
        (other.enrolled, other.entry(keys=taken.keys).to_bytes(), "signed for this run"),
        (copied.enrolled, copied.entry().to_bytes(), "keys of its own"),
        (signing.enrolled, signing.entry().to_bytes(), "keys of its own"),
    ]:
        assert why in made.take(node, encoded), why
        assert not made.has(node.name)


def test_a_copy_of_a_key_in_another_encoding_and_a_key_of_small_order_do_not_count(tmp_path: Path) -> None:
    made, (first, *_) = filled(tmp_path, 2)
    # the highest bit of an X25519 key is ignored, so this is the same key in other bytes
    same = bytes([*first.keys.exchange[:31], first.keys.exchange[31] | 128])
    for exchange, why in [(same, "keys of its own"), (SMALL_ORDER, "keys that are neither empty nor copies")]:
        one = Applicant("one", PublicKeys(exchange, RunKeys.generate().public.signing))
        assert why in made.take(one.enrolled, one.entry().to_bytes())


def test_the_first_entry_with_the_same_keys_stays_and_new_keys_count_until_the_roster_is_fixed(tmp_path: Path) -> None:
    made, applicants = filled(tmp_path, 3)
    first = applicants[0]
    second_signature = first.entry()
    made.take(first.enrolled, second_signature.to_bytes())
    renewed = RunKeys.generate().public
    applicants[1].keys = renewed
    made.take(applicants[1].enrolled, applicants[1].entry().to_bytes())
    fixed = made.fix(one.name for one in applicants)
    assert fixed.entry(first.name).signature != second_signature.signature
    assert fixed.entry(applicants[1].name).keys == renewed


def test_a_roster_holds_as_many_as_the_numbers_allow(tmp_path: Path) -> None:
    made, applicants = filled(tmp_path, 5, most=lambda able: min(able, 4))
    assert made.fix(one.name for one in applicants).names == tuple(f"clinic-{i}" for i in range(4))
    with pytest.raises(SettingsError):
        roster_in(tmp_path / "empty").fix(["clinic-0"])


def test_a_run_goes_on_until_fewer_than_the_threshold_are_left(tmp_path: Path) -> None:
    made, applicants = filled(tmp_path, 5)
    made.fix(one.name for one in applicants)
    made.note_gone("a stranger", "revoked")
    made.note_gone("clinic-1", "rejected")
    made.require_enough()
    assert not made.has("clinic-1") and made.has("clinic-2")
    made.note_gone("clinic-0", "out_of_secure_sum")
    with pytest.raises(SettingsError, match=r"at least 4 of the 5 .* got 3: clinic-0 \(out_of_secure_sum\), clinic-1"):
        made.require_enough()


@pytest.mark.parametrize("content", [b"", b"other", None])
def test_a_damaged_roster_ends_the_run_and_makes_no_other_one(tmp_path: Path, content: bytes | None) -> None:
    made, applicants = filled(tmp_path, 3)
    encoded = made.fix(one.name for one in applicants).to_bytes()
    file = tmp_path / "sum" / "roster"
    file.write_bytes(encoded.replace(RUN.encode(), b"r-2") if content is None else content)
    with pytest.raises(DataError, match="damaged"):
        roster_in(tmp_path)
