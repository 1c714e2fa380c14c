"""What one secure sum is of stands in every key, commitment and signature."""

import hashlib
import hmac
import struct
from dataclasses import fields, replace
from typing import Any

import pytest

from shared.secure_sum.boxes import Address, seal, unseal
from shared.secure_sum.context import RoundContext
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.masks import committed, own_seed, pair_seed
from shared.secure_sum.refusals import Refusal
from shared.secure_sum.survivors import Survivors
from tests.support.secure_sums import refused

CONTEXT = RoundContext("run-1", "5" * 64, 3, "a" * 64, "c" * 64)
OTHER: dict[str, Any] = {
    "run": "run-2",
    "study_sha256": "6" * 64,
    "round": 4,
    "adapter_sha256": "b" * 64,
    "roster_sha256": "d" * 64,
    "purpose": "evaluation",
}


def test_every_field_of_a_context_is_tried() -> None:
    assert OTHER.keys() == {field.name for field in fields(RoundContext)}


@pytest.mark.guarantee("two contexts that differ in any field share no key, no commitment and no signature.")
@pytest.mark.parametrize("field", OTHER)
def test_another_context_has_other_keys_commitments_and_signatures(field: str) -> None:
    other, own, keys = replace(CONTEXT, **{field: OTHER[field]}), b"o" * 32, RunKeys.generate()
    survivors = Survivors.of({"a": bytes(32)})
    assert own_seed(own, CONTEXT, "a") != own_seed(own, other, "a")
    assert pair_seed(own, CONTEXT, "a", "b") != pair_seed(own, other, "a", "b")
    assert committed(own, CONTEXT, "a") != committed(own, other, "a")
    assert survivors.sha256(CONTEXT) != survivors.sha256(other)
    assert not survivors.is_signed(survivors.sign(keys, CONTEXT), keys.public.signing, other)
    box = seal(bytes(66), own, Address(CONTEXT, "a", "b", bytes(32)))
    refused(Refusal.BOX, lambda: unseal(box, own, Address(other, "a", "b", bytes(32))))


def test_fields_do_not_run_into_each_other() -> None:
    one = replace(CONTEXT, run="ab", study_sha256="c")
    assert one.digest != replace(CONTEXT, run="a", study_sha256="bc").digest
    assert CONTEXT.statement("x", "ab", "c") != CONTEXT.statement("x", "a", "bc")


def test_fixed_vector() -> None:
    assert CONTEXT.digest.hex() == "8f75a90cc38f57d38b467a9a1b4112fde65f971f1dde6a474d307d046608ea94"
    assert (
        CONTEXT.derive(bytes(32), "pair", "a", "b").hex()
        == "acadc053109163f9178c45c9b03592babdf135c3c9247cf27aec7ed93923cdf8"
    )


def test_digest_and_keys_are_what_their_definitions_say() -> None:
    def written(*fields: bytes) -> bytes:
        return b"".join(struct.pack(">I", len(field)) + field for field in fields)

    protocol, rest = b"fedvault secure sum 1", (struct.pack(">Q", 3), b"a" * 64, b"c" * 64, b"training")
    digest = hashlib.sha256(written(protocol, b"context", b"run-1", b"5" * 64, *rest)).digest()
    assert CONTEXT.digest == digest
    extracted = hmac.digest(bytes(32), b"s" * 32, "sha256")
    info = written(protocol, b"pair", digest, b"a", b"b")
    assert pair_seed(b"s" * 32, CONTEXT, "b", "a") == hmac.digest(extracted, info + b"\1", "sha256")
    assert (
        committed(b"o" * 32, CONTEXT, "a")
        == hashlib.sha256(written(protocol, b"commit", digest, b"a", b"o" * 32)).digest()
    )


@pytest.mark.parametrize(("field", "value"), [("round", -1), ("round", 2**32), ("purpose", "other")])
def test_there_is_no_such_context(field: str, value: Any) -> None:
    refused(Refusal.MALFORMED, lambda: replace(CONTEXT, **{field: value}))
