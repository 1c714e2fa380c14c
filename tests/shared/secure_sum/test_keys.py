"""A node's keys for one run."""

import pytest

from shared.secure_sum.keys import RunKeys, signed_by
from shared.secure_sum.refusals import Refusal
from tests.support.secure_sums import refused


def test_keys_are_stored_and_read_back() -> None:
    keys = RunKeys.generate()
    again = RunKeys.from_bytes(keys.to_bytes())
    assert again.public == keys.public
    assert signed_by(keys.public.signing, again.sign(b"statement"), b"statement")
    refused(Refusal.MALFORMED, lambda: RunKeys.from_bytes(keys.to_bytes()[:-1]))
    refused(Refusal.MALFORMED, lambda: RunKeys.from_bytes(keys.to_bytes() + b"\0"))


@pytest.mark.guarantee("private keys do not show in a repr.")
def test_a_repr_shows_no_private_key() -> None:
    keys = RunKeys.generate()
    assert repr(keys) == "RunKeys()"


def test_a_signature_is_of_one_key_and_one_statement() -> None:
    keys, other = RunKeys.generate(), RunKeys.generate()
    signature = keys.sign(b"statement")
    assert not signed_by(other.public.signing, signature, b"statement")
    assert not signed_by(keys.public.signing, signature, b"another")
    assert not signed_by(bytes(31), signature, b"statement")
    assert not signed_by(keys.public.signing, b"", b"statement")


def test_both_sides_of_a_pair_have_one_secret() -> None:
    one, other = RunKeys.generate(), RunKeys.generate()
    assert one.secret_with(other.public.exchange) == other.secret_with(one.public.exchange)
    refused(Refusal.ROSTER_KEY, lambda: one.secret_with(bytes(32)))
    refused(Refusal.ROSTER_KEY, lambda: one.secret_with(b"short"))
