"""Masks look uniform, cancel exactly, and treat every value alike."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from shared.secure_sum.context import RoundContext
from shared.secure_sum.masks import (
    Masked,
    add_pair_masks,
    committed,
    fresh,
    mask,
    own_seed,
    pair_seed,
    stream,
)

CONTEXT = RoundContext("run-1", "5" * 64, 3, "a" * 64, "c" * 64)
FALSE_ALARM = 1e-6


def seen_as_uniform(vector: Masked) -> bool:
    """Two-sided: byte counts may neither vary more nor less than uniform ones do (chance of an error 1e-6)."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    statistic = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], 255)
    return bool(low < statistic < high)


@pytest.mark.guarantee("a masked vector of zeros looks uniform.")
def test_zeros_look_uniform_under_either_mask() -> None:
    zeros = np.zeros(50_000, np.int64)
    own, pair = fresh(), fresh()
    assert seen_as_uniform(mask(zeros, "a", own, {"b": pair}))
    assert seen_as_uniform(mask(zeros, "a", own, {}))
    assert seen_as_uniform(mask(zeros, "a", own, {"b": pair}) - stream(own, 50_000))


def test_the_test_of_uniformity_is_two_sided() -> None:
    even = np.arange(256, dtype=np.uint8).repeat(1600).view(np.uint64)
    assert not seen_as_uniform(even), "too even"
    assert not seen_as_uniform(np.zeros(50_000, np.uint64)), "no mask"
    biased = stream(fresh(), 50_000).copy()
    biased[:500] = 0
    assert not seen_as_uniform(biased), "one in a hundred shows"


def test_two_vectors_under_one_mask_differ_by_the_vectors_and_so_none_is_used_twice() -> None:
    seed, values = fresh(), np.arange(5)
    difference = mask(values, "a", seed, {}) - mask(np.zeros(5, np.int64), "a", seed, {})
    assert np.array_equal(difference, values)
    assert len({fresh() for _ in range(100)}) == 100


@pytest.mark.guarantee("no value raises or is clamped: every vector of int64 is masked in the same way, modulo 2^64.")
def test_the_largest_values_wrap_and_come_back() -> None:
    bounds = np.iinfo(np.int64)
    values = np.array([bounds.min, bounds.max, -1, 0, 1])
    seeds = {"b": fresh()}
    masked = mask(values, "a", own := fresh(), seeds)
    add_pair_masks(masked, "a", seeds, times=-1)
    assert np.array_equal((masked - stream(own, 5)).view(np.int64), values)


def test_pair_masks_cancel_between_any_two_names() -> None:
    total = np.zeros(3, np.uint64)
    for name, peer in (("a", "b"), ("b", "a"), ("Z", "é"), ("é", "Z")):
        add_pair_masks(total, name, {peer: pair_seed(b"s" * 32, CONTEXT, name, peer)})
    assert not total.any()


def test_each_pair_and_each_use_has_its_own_key() -> None:
    secret = b"s" * 32
    keys = [own_seed(secret, CONTEXT, "a"), own_seed(secret, CONTEXT, "b"), committed(secret, CONTEXT, "a")]
    keys += [pair_seed(secret, CONTEXT, *pair) for pair in (("a", "b"), ("a", "c"), ("ab", "c"), ("a", "bc"))]
    assert len(set(keys)) == len(keys)
    assert pair_seed(secret, CONTEXT, "a", "b") == pair_seed(secret, CONTEXT, "b", "a")


def test_a_stream_is_aes_256_in_counter_mode_and_a_longer_one_begins_with_it() -> None:
    seed = bytes(range(32))
    blocks = b"".join(number.to_bytes(16, "big") for number in range(2))
    plain = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor().update(blocks)  # noqa: S305 - to compare with
    assert stream(seed, 3).astype("<u8").tobytes() == plain[:24]
    assert np.array_equal(stream(seed, 100)[:3], stream(seed, 3))


def test_fixed_vector() -> None:
    masked = mask(np.array([1, -2]), "a", own_seed(b"o" * 32, CONTEXT, "a"), {"b": b"p" * 32})
    assert masked.astype("<u8").tobytes().hex() == "33926c0f159db6e98a5e713221576195"
