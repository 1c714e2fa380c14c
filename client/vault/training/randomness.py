"""The source of sampling and noise: a stream cipher, with a fresh key from the operating system for every step.

A seed that anyone else knows makes noise removable. So a node has no seed: each logical step draws 32 bytes, uses them
once and forgets them. There is no state to inherit over a fork, to write into a checkpoint or to log.
"""

import os
from typing import NoReturn, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from client.vault.training.discrete_gaussian import discrete_gaussian
from shared.checks import probability
from shared.errors import ExactnessError

KEY_BYTES = 32


class StepRandomness(Protocol):
    """The randomness of one logical step; each of its streams can be read once."""

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        """Ascending indices below `count`, each included independently with probability `sampling_rate`."""
        ...

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Independent whole numbers from a discrete Gaussian, as `discrete_gaussian.discrete_gaussian` defines it."""
        ...

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Independent numbers strictly between 0 and 1, to round a finished update with."""
        ...


class Randomness(Protocol):
    """A source of steps."""

    def step(self) -> StepRandomness:
        """Randomness for the next logical step, under a key of its own."""
        ...


class KeyStream:
    """Sampling and noise of one step, or the rounding of a finished update, from one 32-byte key through ChaCha20.

    Guarantee: no part of the key stream is used twice; a second read raises instead.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ExactnessError(f"Expected a key of {KEY_BYTES} bytes, got {len(key)}.")
        self._key = key
        self._used: set[str] = set()

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        """Compare one 64-bit number per record with floor(q x 2^64).

        Guarantee: whether a record is drawn depends on its own 64 bits alone, never on the batch so far.
        """
        probability(sampling_rate=sampling_rate)
        draws = np.frombuffer(self._stream("sampling", 8 * count), dtype="<u8")
        if sampling_rate >= 1:
            return np.arange(count, dtype=np.int64)
        return np.flatnonzero(draws < np.uint64(int(sampling_rate * 2**64))).astype(np.int64)

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Draw by rejection, from as many words of the noise stream as it takes."""
        noise = self._open("noise")
        return discrete_gaussian(lambda words: np.frombuffer(noise.update(bytes(8 * words)), "<u8"), count, scale)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Strictly between 0 and 1, with 52 random bits."""
        return open_uniforms(np.frombuffer(self._stream("rounding", 8 * count), dtype="<u8"))

    def _stream(self, purpose: str, size_bytes: int) -> bytes:
        return self._open(purpose).update(bytes(size_bytes))

    def _open(self, purpose: str) -> CipherContext:
        """Begin a stream, which gives every part of the key stream once."""
        if purpose in self._used:
            raise ExactnessError(f"Expected the {purpose} stream of a step to be read once, got a second read.")
        self._used.add(purpose)
        nonce = bytes(4) + purpose.encode().ljust(12, b"\0")  # block counter from 0, then what the stream is for
        return Cipher(ChaCha20(self._key, nonce), mode=None).encryptor()

    def __repr__(self) -> str:
        return "KeyStream(<secret>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key stream is never copied or stored.")


def open_uniforms(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniforms strictly between 0 and 1: with a 53rd bit the largest would round to 1, whose normal is infinite."""
    uniforms: NDArray[np.float64] = ((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    return uniforms


class OsRandomness:
    """The node's source.

    Guarantee: every logical step has a fresh 32-byte key from the operating system, so none is inherited over a fork,
    restored from a checkpoint or known to a server.
    """

    def step(self) -> StepRandomness:
        """Draw a key and forget it with the step."""
        return KeyStream(os.urandom(KEY_BYTES))

    def __reduce__(self) -> NoReturn:
        raise TypeError("A source of randomness is never copied or stored.")
