"""Encrypt one share from its dealer to its holder, so that the server can carry it and not read, turn or reuse it.

ChaCha20-Poly1305 (RFC 8439) under a key for one box: the context, both names in their direction, and the commitment of
the dealing are in the key and in the associated data. A fresh mask has a fresh commitment, so no key is used twice and
the nonce may be zero. Without the direction in the key, the boxes of a pair would share a key stream.
"""

from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from shared.secure_sum.context import RoundContext
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.shares import SHARE_BYTES

NONCE = bytes(12)
BOX_BYTES = SHARE_BYTES + 16


class Address(NamedTuple):
    """Whose box it is."""

    context: RoundContext
    dealer: str
    holder: str
    commitment: bytes


def seal(share: bytes, secret: bytes, address: Address) -> bytes:
    """Encrypt a share under the secret that dealer and holder have in common.

    Guarantee: a box opens only for the pair, the direction, the context and the commitment that it was sealed for.
    """
    key, associated = _key(secret, address)
    return ChaCha20Poly1305(key).encrypt(NONCE, share, associated)


def unseal(box: bytes, secret: bytes, address: Address) -> bytes:
    """Return the share in a box.

    Raises:
        SecureSumError: it is another box, or was changed.
    """
    key, associated = _key(secret, address)
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, box, associated)
    except InvalidTag:
        raise SecureSumError(Refusal.BOX) from None


def _key(secret: bytes, address: Address) -> tuple[bytes, bytes]:
    context, dealer, holder, commitment = address
    parts = "box", dealer, holder, commitment
    return context.derive(secret, *parts), context.statement(*parts)
