"""A box opens in its own place and in no other."""

import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from shared.secure_sum.boxes import BOX_BYTES, NONCE, Address, seal, unseal
from shared.secure_sum.context import RoundContext
from shared.secure_sum.refusals import Refusal
from tests.support.secure_sums import refused

SECRET, SHARE = bytes(range(32)), bytes(range(66))
CONTEXT = RoundContext("run-1", "5" * 64, 3, "a" * 64, "c" * 64)
ADDRESS = Address(CONTEXT, "a", "b", b"c" * 32)
MOVED: dict[str, dict[str, Any]] = {
    "reversed": {"dealer": "b", "holder": "a"},
    "another dealer": {"dealer": "c"},
    "another holder": {"holder": "c"},
    "another dealing": {"commitment": b"d" * 32},
    "another round": {"context": RoundContext("run-1", "5" * 64, 4, "a" * 64, "c" * 64)},
    "another purpose": {"context": RoundContext("run-1", "5" * 64, 3, "a" * 64, "c" * 64, "evaluation")},
}


def test_a_box_opens_in_its_place() -> None:
    box = seal(SHARE, SECRET, ADDRESS)
    assert len(box) == BOX_BYTES
    assert unseal(box, SECRET, ADDRESS) == SHARE


@pytest.mark.guarantee(
    "a box opens only for the pair, the direction, the context and the commitment that it was sealed for."
)
@pytest.mark.parametrize("case", MOVED)
def test_a_box_that_was_moved_stays_closed(case: str) -> None:
    box = seal(SHARE, SECRET, ADDRESS)
    refused(Refusal.BOX, lambda: unseal(box, SECRET, ADDRESS._replace(**MOVED[case])))
    refused(Refusal.BOX, lambda: unseal(box, bytes(32), ADDRESS))


@pytest.mark.parametrize("case", MOVED)
def test_no_two_boxes_share_a_key_stream(case: str) -> None:
    one, other = seal(SHARE, SECRET, ADDRESS), seal(bytes(66), SECRET, ADDRESS._replace(**MOVED[case]))
    assert bytes(a ^ b for a, b in zip(one, other, strict=True))[:66] != SHARE


def test_every_changed_byte_is_seen() -> None:
    box = seal(SHARE, SECRET, ADDRESS)
    for place in range(BOX_BYTES):
        changed = bytearray(box)
        changed[place] ^= 1
        refused(Refusal.BOX, lambda: unseal(bytes(changed), SECRET, ADDRESS))  # noqa: B023 - called at once
    refused(Refusal.BOX, lambda: unseal(b"", SECRET, ADDRESS))


def test_the_associated_data_holds_the_address_too() -> None:
    key = CONTEXT.derive(SECRET, "box", "a", "b", b"c" * 32)
    bare = ChaCha20Poly1305(key).encrypt(NONCE, os.urandom(66), b"")
    refused(Refusal.BOX, lambda: unseal(bare, SECRET, ADDRESS))
