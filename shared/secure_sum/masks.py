"""What hides a vector: a mask of the node's own, and one with each peer that cancels in the sum.

A mask is the key stream of AES-256 in counter mode, under a key of 32 bytes that serves one vector, as numbers modulo
2^64. Of two nodes, the one that stands first in the roster adds their mask and the other subtracts it.
"""

import secrets
from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from shared.secure_sum.context import RoundContext

Vector = NDArray[np.int64]
Masked = NDArray[np.uint64]
VALUE_BYTES = 8
MOST_VALUES = 2**26
OWN_MASK_BYTES = 32
FIRST_BLOCK = bytes(16)


def fresh() -> bytes:
    """Return a new own mask: 32 bytes from the system, for one vector."""
    return secrets.token_bytes(OWN_MASK_BYTES)


def committed(own: bytes, context: RoundContext, name: str) -> bytes:
    """Return the commitment to an own mask, by which its reconstruction is checked."""
    return context.hashed("commit", name, own)


def own_seed(own: bytes, context: RoundContext, name: str) -> bytes:
    """Return the key of an own mask's stream."""
    return context.derive(own, "mask", name)


def pair_seed(secret: bytes, context: RoundContext, one: str, other: str) -> bytes:
    """Return the key of the stream of two nodes, the same in either order."""
    return context.derive(secret, "pair", *sorted((one, other), key=str.encode))


def stream(seed: bytes, length: int) -> Masked:
    """Return the first numbers of a seed's stream, uniform modulo 2^64."""
    encryptor = Cipher(algorithms.AES256(seed), modes.CTR(FIRST_BLOCK)).encryptor()
    return np.frombuffer(encryptor.update(bytes(VALUE_BYTES * length)), dtype="<u8").astype(np.uint64, copy=False)


def add_pair_masks(total: Masked, name: str, seeds: Mapping[str, bytes], *, times: int = 1) -> None:
    """Add to `total`, in place, the masks of a node with some peers; `times=-1` takes them away.

    Args:
        total: a vector modulo 2^64.
        name: of the node whose vector it is, or is part of it.
        seeds: of its streams, by peer.
        times: 1 or -1.
    """
    for peer, seed in seeds.items():
        if (name.encode() < peer.encode()) == (times > 0):
            total += stream(seed, len(total))
        else:
            total -= stream(seed, len(total))


def mask(values: Vector, name: str, own: bytes, seeds: Mapping[str, bytes]) -> Masked:
    """Hide a vector under an own seed's stream and those with all peers.

    Guarantee: no value raises or is clamped: every vector of int64 is masked in the same way, modulo 2^64.

    Guarantee: a masked vector of zeros looks uniform.

    Args:
        values: one node's vector, noise included.
        name: of the node.
        own: seed of its own mask's stream.
        seeds: of the streams with each peer of the roster, by name.
    """
    total = np.ascontiguousarray(values, dtype=np.int64).view(np.uint64) + stream(own, len(values))
    add_pair_masks(total, name, seeds)
    return total
