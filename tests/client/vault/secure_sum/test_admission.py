"""Rosters that a node refuses by a public code, before anything is paid, and the one that it takes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from client.vault.ledger.rows import Limit
from shared.protocol.messages import Status
from shared.secure_sum.entries import Entry, sign_entry
from shared.secure_sum.keys import PublicKeys, RunKeys
from shared.secure_sum.roster import Numbers, Roster
from shared.secure_sum.thresholds import OwnPolicy, Thresholds
from tests.support.ledgers import rows_of
from tests.support.sum_nodes import NAMES, RUN, Federation, SumNode, certificate_key, fingerprint, sum_study

OF_SMALL_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def spent(node: SumNode) -> float:
    with node.ledger() as ledger:
        return ledger.state.spent("data")


def signed(federation: Federation, name: str, keys: PublicKeys, run: str = RUN) -> Entry:
    return sign_entry(run, federation.study.sha256, name, keys, certificate_key(name))


def of(federation: Federation, *changed: Entry) -> Roster:
    """The roster with some entries in place of those of their names."""
    entries = {entry.name: entry for entry in (*federation.server.roster.entries, *changed)}
    return federation.server.roster_of(list(entries.values()))


def without_me(federation: Federation) -> Roster:
    return federation.server.roster_of([e for e in federation.server.roster.entries if e.name != "north"])


def me_under_other_keys(federation: Federation) -> Roster:
    return of(federation, signed(federation, "north", RunKeys.generate().public))


def me_under_another_certificate(federation: Federation) -> Roster:
    mine, other = federation.server.roster.entry("north").keys, ec.generate_private_key(ec.SECP384R1())
    return of(federation, sign_entry(RUN, federation.study.sha256, "north", mine, other))


def me_under_another_name(federation: Federation) -> Roster:
    mine = federation.server.roster.entry("north").keys
    entries = [entry for entry in federation.server.roster.entries if entry.name != "north"]
    return federation.server.roster_of([*entries, signed(federation, "mallory", mine)])


def copied_key(federation: Federation) -> Roster:
    copied = federation.server.roster.entry("south").keys.exchange
    return of(federation, signed(federation, "west", PublicKeys(copied, RunKeys.generate().public.signing)))


def my_key_copied(federation: Federation) -> Roster:
    copied = federation.server.roster.entry("north").keys.exchange
    return of(federation, signed(federation, "west", PublicKeys(copied, RunKeys.generate().public.signing)))


def other_encoding_of_a_key(federation: Federation) -> Roster:
    copied = bytearray(federation.server.roster.entry("south").keys.exchange)
    copied[31] |= 0x80  # the highest bit is ignored (RFC 7748, 5)
    return of(federation, signed(federation, "west", PublicKeys(bytes(copied), RunKeys.generate().public.signing)))


def key_of_small_order(federation: Federation) -> Roster:
    return of(federation, signed(federation, "west", PublicKeys(OF_SMALL_ORDER, RunKeys.generate().public.signing)))


def wrong_signature(federation: Federation) -> Roster:
    entry = federation.server.roster.entry("west")
    return of(federation, replace(entry, signature=signed(federation, "west", entry.keys, run="r-2").signature))


def other_thresholds(federation: Federation) -> Roster:
    roster = federation.server.roster
    return replace(roster, numbers=Numbers("masked", Thresholds(4, 4, 2), roster.numbers.noise))


def other_noise(federation: Federation) -> Roster:
    roster = federation.server.roster
    return replace(roster, numbers=roster.numbers._replace(noise=(("noise_multiplier", 0.1),)))


def of_another_run(federation: Federation) -> Roster:
    return replace(federation.server.roster, run="r-2")


CASES: dict[str, Callable[[Federation], Roster]] = {
    made.__name__: made
    for made in (
        without_me,
        me_under_other_keys,
        me_under_another_certificate,
        me_under_another_name,
        copied_key,
        my_key_copied,
        other_encoding_of_a_key,
        key_of_small_order,
        wrong_signature,
        other_thresholds,
        other_noise,
        of_another_run,
    )
}


@pytest.mark.guarantee("a node takes part only under the first roster that it took, with its own keys in it unchanged.")
@pytest.mark.parametrize("case", CASES)
def test_a_roster_that_cannot_be_trusted_is_refused_and_costs_nothing(federation: Federation, case: str) -> None:
    node = federation.nodes["north"]
    for number in (1, 2):
        reply = node.train(federation.server.task(number, roster=CASES[case](federation)))
        assert reply.status is Status.REFUSED_ROSTER and not any(reply.masked)
    assert node.row_kinds() == ["register", "approve"] and spent(node) == 0 and not node.trainer.charged
    assert node.train(federation.server.task()).status is Status.TRAINED, "what was refused binds to nothing"


@pytest.mark.parametrize("encoded", [b"", b"FVSS", b"\xff" * 400])
def test_what_is_no_roster_is_refused(federation: Federation, encoded: bytes) -> None:
    node = federation.nodes["north"]
    assert node.train(replace(federation.server.task(), roster=encoded)).status is Status.REFUSED_ROSTER
    assert not node.trainer.charged


def test_another_roster_later_is_refused_also_after_a_restart(federation: Federation) -> None:
    node, server = federation.nodes["north"], federation.server
    assert node.train(server.task()).status is Status.TRAINED
    other = of(federation, signed(federation, "west", RunKeys.generate().public))
    assert node.train(server.task(2, roster=other)).status is Status.REFUSED_ROSTER
    fewer = server.roster_of([entry for entry in server.roster.entries if entry.name != "west"])
    assert node.train(server.task(2, roster=fewer)).status is Status.REFUSED_ROSTER
    signed_again = of(federation, node.entry())
    assert node.train(server.task(2, roster=signed_again)).status is Status.REFUSED_ROSTER, "other bytes"
    assert node.train(server.task(2)).status is Status.TRAINED
    assert node.row_kinds().count("roster") == 1


def test_the_row_of_a_roster_names_no_node(federation: Federation) -> None:
    node = federation.nodes["north"]
    node.train(federation.server.task())
    with node.ledger() as ledger:
        (row,) = (row for row in rows_of(ledger) if row["kind"] == "roster")
    assert {"kind", "run", "roster_sha256", "nodes", "threshold", "colluders", "time", "salt", "height", "hash"} == set(
        row
    )
    assert row["roster_sha256"] == federation.server.roster.sha256


def test_a_second_signature_over_the_same_line_is_taken(federation: Federation) -> None:
    node = federation.nodes["north"]
    assert node.entry().signature != federation.server.roster.entry("north").signature
    assert node.train(federation.server.task(roster=of(federation, node.entry()))).status is Status.TRAINED


PINNED = {fingerprint(name): "" for name in NAMES}
ONE_OWNER = PINNED | {fingerprint("south"): "city", fingerprint("west"): "city"}


@pytest.mark.guarantee(
    "a roster that breaks the operator's own rule is refused before anything is paid, also if it was taken."
)
@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        (OwnPolicy(PINNED, 1, 3), True),
        (OwnPolicy(PINNED, 1, 4), True),
        (OwnPolicy(PINNED, 1, 5), False),
        (OwnPolicy(PINNED, 2, 3), False),
        (OwnPolicy({}, 1, 3), False),
        (OwnPolicy({fingerprint(name): "" for name in ("east", "south")}, 1, 3), False),
        (OwnPolicy(ONE_OWNER, 1, 3), False),
    ],
    ids=["all pinned", "as many as asked for", "too few", "two feared", "none pinned", "one not pinned", "one owner"],
)
def test_the_operators_rule_decides_whom_a_node_takes_part_with(
    federation: Federation, rule: OwnPolicy, taken: bool
) -> None:
    node, usual = federation.nodes["north"], federation.nodes["north"].rule
    node.rule = rule
    expected = Status.TRAINED if taken else Status.REFUSED_ROSTER
    assert node.train(federation.server.task()).status is expected and (spent(node) > 0) is taken
    node.rule = usual
    assert node.train(federation.server.task(2)).status is Status.TRAINED
    node.rule = rule
    assert node.train(federation.server.task(3)).status is expected, "the rule of today holds for what was taken before"


def test_a_roster_of_fewer_nodes_than_the_study_begins_with_is_refused(tmp_path: Path) -> None:
    """Approved with a quorum of four in mind, a sum of three says more of each."""
    federation = Federation(tmp_path, sum_study(quorum=4))
    server, node = federation.server, federation.nodes["north"]
    three = server.roster_of([entry for entry in server.roster.entries if entry.name != "west"])
    assert node.train(server.task(roster=three)).status is Status.REFUSED_ROSTER
    assert spent(node) == 0 and "roster" not in node.row_kinds()
    assert node.train(server.task()).status is Status.TRAINED


def test_a_run_that_fears_more_colluders_may_leave_nodes_unpinned(tmp_path: Path) -> None:
    federation = Federation(tmp_path, sum_study(colluders=2, threshold=4))
    node = federation.nodes["north"]
    node.rule = OwnPolicy({fingerprint(name): "" for name in ("east", "south")}, 1, 3)
    assert node.train(federation.server.task()).status is Status.TRAINED


def test_a_roster_by_which_all_others_could_see_too_much_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, sum_study("shared"))
    node, task = federation.nodes["north"], federation.server.task()
    node.limit = Limit(9.0, 1e-5, 3.01)
    assert node.train(task).status is Status.REFUSED_ROSTER and not node.trainer.charged
    node.limit = Limit(9.0, 1e-5, 9.0)
    assert node.train(task).status is Status.TRAINED


def test_a_node_without_keys_takes_no_roster_and_one_whose_keys_are_gone_is_out(federation: Federation) -> None:
    node, task = federation.nodes["north"], federation.server.task()
    node.files.forget(RUN)
    assert node.train(task).status is Status.REFUSED_ROSTER
    other = federation.nodes["south"]
    assert other.train(task).status is Status.TRAINED
    other.files.forget(RUN)
    assert other.train(federation.server.task(2)).status is Status.OUT_OF_SECURE_SUM
    assert other.leg("survivors", b"").status is Status.OUT_OF_SECURE_SUM
    assert len(other.trainer.charged) == 1
