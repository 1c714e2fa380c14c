"""Which rosters a node refuses, each by its code."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.secure_sum.entries import Entry, entry_statement, is_signed, sign_entry
from shared.secure_sum.keys import PublicKeys, RunKeys
from shared.secure_sum.node import Member, take_roster
from shared.secure_sum.refusals import Refusal
from shared.secure_sum.roster import Numbers, Roster
from shared.secure_sum.thresholds import OwnPolicy, Thresholds
from tests.support.secure_sums import RUN, STUDY, certificate_key, names_of, refused, signed

NUMBERS = Numbers("shared", Thresholds(4, 3, 1), (("grid", 2.0**-20), ("noise_multiplier", 1.25)))
ME, PEER, OTHER, LAST = names_of(4)
KEYS = {name: RunKeys.generate() for name in (ME, PEER, OTHER, LAST)}
ENTRIES = {name: signed(name, keys) for name, keys in KEYS.items()}
FIELD = 2**255 - 19
SMALL_ORDERS = (0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504, FIELD - 1)


def taken(roster: Roster, accepted: str | None = None, **changed: Any) -> Member:
    pins = {entry.fingerprint: "" for entry in roster.entries}
    fields = {"run": RUN, "study_sha256": STUDY, "vouched": lambda entry: True, "policy": OwnPolicy(pins), **changed}
    expected = changed.pop("expected", NUMBERS)
    fields.pop("expected", None)
    return take_roster(roster, ENTRIES[ME], KEYS[ME], expected, fields.pop("policy"), accepted, **fields)


def roster(**changed: Entry | None) -> Roster:
    entries = {**ENTRIES, **{name.replace("_", "-"): entry for name, entry in changed.items()}}
    return Roster.of(RUN, STUDY, NUMBERS, [entry for entry in entries.values() if entry is not None])


def with_key(name: str, exchange: bytes, signing: bytes | None = None) -> Entry:
    return sign_entry(
        RUN, STUDY, name, PublicKeys(exchange, signing or KEYS[name].public.signing), certificate_key(name)
    )


def test_an_honest_roster_is_taken_and_reads_back() -> None:
    honest = roster()
    assert taken(honest).roster is honest
    assert Roster.from_bytes(honest.to_bytes()) == honest
    assert honest.names == tuple(sorted(ENTRIES))


REFUSED: dict[str, tuple[Refusal, Callable[[], Roster]]] = {
    "without me": (Refusal.ROSTER_WITHOUT_ME, lambda: roster(node_000=signed("node-999", RunKeys.generate()))),
    "my keys changed": (Refusal.ROSTER_CHANGED_ME, lambda: roster(node_000=signed(ME, RunKeys.generate()))),
    "my certificate changed": (
        Refusal.ROSTER_CHANGED_ME,
        lambda: roster(node_000=signed(ME, KEYS[ME], certificate="x")),
    ),
    "a wrong signature": (
        Refusal.ROSTER_SIGNATURE,
        lambda: roster(node_001=replace(ENTRIES[PEER], signature=ENTRIES[OTHER].signature)),
    ),
    "an entry of another run": (
        Refusal.ROSTER_SIGNATURE,
        lambda: roster(node_001=signed(PEER, KEYS[PEER], run="run-2")),
    ),
    "an entry of another study": (
        Refusal.ROSTER_SIGNATURE,
        lambda: roster(node_001=signed(PEER, KEYS[PEER], study="6" * 64)),
    ),
    "a name changed": (
        Refusal.ROSTER_SIGNATURE,
        lambda: roster(node_001=replace(ENTRIES[PEER], name="node-0015")),
    ),
    "two of one name": (
        Refusal.ROSTER_DUPLICATE,
        lambda: roster(node_001=signed(OTHER, KEYS[PEER], certificate=PEER)),
    ),
    "two of one certificate": (
        Refusal.ROSTER_DUPLICATE,
        lambda: roster(node_001=signed(PEER, KEYS[PEER], certificate=OTHER)),
    ),
    "my exchange key copied": (
        Refusal.ROSTER_DUPLICATE,
        lambda: roster(node_001=with_key(PEER, KEYS[ME].public.exchange)),
    ),
    "a peer's exchange key copied": (
        Refusal.ROSTER_DUPLICATE,
        lambda: roster(node_001=with_key(PEER, KEYS[OTHER].public.exchange)),
    ),
    "a peer's signing key copied": (
        Refusal.ROSTER_DUPLICATE,
        lambda: roster(node_001=with_key(PEER, KEYS[PEER].public.exchange, KEYS[OTHER].public.signing)),
    ),
    "one missing": (Refusal.ROSTER_OTHER_NUMBERS, lambda: roster(node_003=None)),
    "one more": (Refusal.ROSTER_OTHER_NUMBERS, lambda: roster(node_004=signed("node-004", RunKeys.generate()))),
    "not by name": (Refusal.MALFORMED, lambda: replace(roster(), entries=roster().entries[::-1])),
    "a name that moves a terminal's cursor": (
        Refusal.MALFORMED,
        lambda: roster(node_003=signed("node-003\x1b[1A", KEYS[LAST], certificate=LAST)),
    ),
    "another run": (Refusal.ROSTER_OTHER_RUN, lambda: replace(roster(), run="run-2")),
    "another study": (Refusal.ROSTER_OTHER_RUN, lambda: replace(roster(), study_sha256="6" * 64)),
    "another mode": (Refusal.ROSTER_OTHER_NUMBERS, lambda: replace(roster(), numbers=NUMBERS._replace(mode="masked"))),
    "less noise": (
        Refusal.ROSTER_OTHER_NUMBERS,
        lambda: replace(roster(), numbers=NUMBERS._replace(noise=(("noise_multiplier", 1.0),))),
    ),
    "another threshold": (
        Refusal.ROSTER_OTHER_NUMBERS,
        lambda: replace(roster(), numbers=NUMBERS._replace(thresholds=Thresholds(4, 4, 1))),
    ),
}


@pytest.mark.guarantee(
    "a roster without this node, with this node changed, with a wrong signature, or with a copied key is refused."
)
@pytest.mark.parametrize("case", REFUSED)
def test_a_roster_is_refused_by_its_reason(case: str) -> None:
    code, make = REFUSED[case]
    refused(code, lambda: taken(make()))


@pytest.mark.parametrize("order", SMALL_ORDERS)
def test_a_key_whose_secrets_are_zero_is_refused(order: int) -> None:
    refused(Refusal.ROSTER_KEY, lambda: taken(roster(node_001=with_key(PEER, order.to_bytes(32, "little")))))


@pytest.mark.parametrize("copied", [ME, OTHER])
def test_a_key_plus_a_torsion_point_is_a_copy(copied: str) -> None:
    exchange = KEYS[copied].public.exchange
    assert len(twins(exchange)) == 3
    for twin in twins(exchange):
        assert twin != exchange
        refused(Refusal.ROSTER_KEY, lambda: taken(roster(node_001=with_key(PEER, twin))))  # noqa: B023 - called at once


@pytest.mark.parametrize("copied", [ME, OTHER])
def test_another_encoding_of_a_key_is_a_copy(copied: str) -> None:
    exchange = bytearray(KEYS[copied].public.exchange)
    exchange[31] ^= 128  # X25519 ignores this bit
    refused(Refusal.ROSTER_KEY, lambda: taken(roster(node_001=with_key(PEER, bytes(exchange)))))


def test_an_entry_of_mine_with_other_keys_than_the_vault_has_is_refused() -> None:
    honest, keys = roster(), RunKeys.generate()
    fields = {"run": RUN, "study_sha256": STUDY, "vouched": lambda entry: True}
    pins = OwnPolicy({entry.fingerprint: "" for entry in honest.entries})
    refused(Refusal.ROSTER_CHANGED_ME, lambda: take_roster(honest, ENTRIES[ME], keys, NUMBERS, pins, None, **fields))


def test_a_stranger_is_the_callers_to_tell() -> None:
    refused(Refusal.ROSTER_STRANGER, lambda: taken(roster(), vouched=lambda entry: entry.name != LAST))


def test_two_nodes_of_one_owner_count_together() -> None:
    honest = roster()
    pins = {entry.fingerprint: "A" if entry.name in (OTHER, LAST) else "" for entry in honest.entries}
    refused(Refusal.TOO_MANY_COLLUDERS, lambda: taken(honest, policy=OwnPolicy(pins)))


def test_nodes_that_the_server_enrolled_itself_are_feared() -> None:
    honest = roster()
    pins = {entry.fingerprint: "" for entry in honest.entries if entry.name in (ME, PEER)}
    refused(Refusal.TOO_MANY_COLLUDERS, lambda: taken(honest, policy=OwnPolicy(pins)))


@pytest.mark.guarantee("a node takes one roster a run.")
def test_another_roster_later_is_refused() -> None:
    first, second = roster(), roster(node_003=signed(LAST, RunKeys.generate()))
    taken(first)
    taken(first, first.sha256)
    refused(Refusal.SECOND_ROSTER, lambda: taken(second, first.sha256))


@pytest.mark.guarantee("a certificate key has one encoding, so that two entries with one key are seen to share it.")
def test_a_certificate_key_in_another_encoding_is_refused() -> None:
    key = certificate_key(PEER).public_key()
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    usual = ENTRIES[PEER].certificate_key
    head = bytes.fromhex("3046301006072a8648ce3d020106052b81040022033200")
    compressed = head + point
    loaded = serialization.load_der_public_key(compressed)
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded == key
    assert compressed != usual
    statement = entry_statement(RUN, STUDY, PEER, compressed, KEYS[PEER].public)
    signature = certificate_key(PEER).sign(statement, ec.ECDSA(hashes.SHA384()))
    assert not is_signed(Entry(PEER, compressed, KEYS[PEER].public, signature), RUN, STUDY)
    assert is_signed(ENTRIES[PEER], RUN, STUDY)


def test_another_kind_of_certificate_key_is_refused() -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())):
        assert not is_signed(sign_entry(RUN, STUDY, PEER, KEYS[PEER].public, key), RUN, STUDY)


def twins(exchange: bytes) -> list[bytes]:
    """A Curve25519 point plus each point of small order that gives another u, by the affine group law."""
    u = int.from_bytes(exchange, "little") & (2**255 - 1)
    return [twin.to_bytes(32, "little") for twin in {*_plus_order_two(u), *_plus_order_four(u)} if twin != u]


def _plus_order_two(u: int) -> list[int]:
    # (0, 0) has order two; P + (0, 0) has u' = 1 / u
    return [pow(u, -1, FIELD)]


def _plus_order_four(u: int) -> list[int]:
    # (1, y) has order four; x-only: u(P + Q) + u(P - Q) = 2 ((u + 1)(u + 1) + 2 A u) / (u - 1)^2, their product is 1
    a = 486662
    total = 2 * ((u + 1) * (u + 1) + 2 * a * u) * pow((u - 1) ** 2, -1, FIELD) % FIELD
    root = _square_root((total * total - 4) % FIELD)
    if root is None:
        return []
    half = pow(2, -1, FIELD)
    return [(total + root) * half % FIELD, (total - root) * half % FIELD]


def _square_root(square: int) -> int | None:
    root = pow(square, (FIELD + 3) // 8, FIELD)
    for candidate in (root, root * pow(2, (FIELD - 1) // 4, FIELD) % FIELD):
        if candidate * candidate % FIELD == square:
            return candidate
    return None
