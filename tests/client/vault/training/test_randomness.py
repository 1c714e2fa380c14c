"""Sampling and noise, tested on both sides: the right law is accepted, a wrong one is not.

Each check fails a correct implementation with probability below 1e-6.
"""

import os
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from client.vault.training.noise_prefetch import PrefetchedNoise, prefetch_noise
from client.vault.training.randomness import KeyStream, OsRandomness
from shared.errors import ExactnessError
from shared.privacy.grid import GRID
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

FALSE_ALARM = 1e-6
SCALE = 1000.0
Draws = NDArray[np.float64]


def has_standard_deviation(draws: Draws, sigma: float) -> bool:
    """Chi-square interval on the variance."""
    count = len(draws)
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], count)
    return bool(low * sigma**2 <= float(np.sum(draws**2)) <= high * sigma**2)


def has_rate(hits: int, trials: int, rate: float) -> bool:
    """Exact binomial interval."""
    low, high = stats.binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], trials, rate)
    return bool(low <= hits <= high)


def test_noise_has_its_standard_deviation_and_a_wrong_scale_would_be_seen() -> None:
    scale = 1.7 / GRID
    draws = OsRandomness().step().discrete_gaussian(20_000, scale) / scale
    assert has_standard_deviation(draws, 1.0)
    assert stats.kstest(draws, "norm").pvalue > FALSE_ALARM
    for wrong in (2 / 3, 3 / 2, 0.0):
        assert not has_standard_deviation(wrong * draws, 1.0)


@pytest.mark.guarantee("whether a record is drawn depends on its own 64 bits alone, never on the batch so far.")
def test_records_are_drawn_independently_at_the_right_rate() -> None:
    rate, records, steps = 0.1, 50, 2000
    drawn = np.zeros((steps, records))
    for row in drawn:
        row[OsRandomness().step().poisson_batch(records, rate)] = 1
    assert all(has_rate(int(hits), steps, rate) for hits in drawn.sum(0))
    assert not has_rate(int(drawn.sum() * 2 / 3), steps * records, rate)
    # independent records: the batch size has the binomial variance, which a fixed batch size has not
    sizes = (drawn.sum(1) - rate * records) / np.sqrt(records * rate * (1 - rate))
    assert 0.8 < sizes.var() < 1.2
    assert not 0.8 < np.zeros(steps).var() < 1.2


def test_rate_one_takes_every_record_and_no_records_give_an_empty_batch() -> None:
    assert OsRandomness().step().poisson_batch(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert OsRandomness().step().poisson_batch(0, 0.5).tolist() == []


@pytest.mark.guarantee(
    "every logical step has a fresh 32-byte key from the operating system, so none is inherited over a fork, "
    "restored from a checkpoint or known to a server."
)
def test_every_step_has_a_fresh_key_also_over_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: keys.append(real(size)) or keys[-1])
    source = OsRandomness()
    first, second_copy = source.step().discrete_gaussian(4, SCALE), source.step().discrete_gaussian(4, SCALE)
    assert [len(key) for key in keys] == [32, 32]
    assert keys[0] != keys[1] and not np.array_equal(first, second_copy)
    assert in_child(lambda: source.step().discrete_gaussian(4, SCALE)) != in_child(
        lambda: source.step().discrete_gaussian(4, SCALE)
    )
    with pytest.raises(TypeError):
        pickle.dumps(source)


@pytest.mark.guarantee("no part of the key stream is used twice; a second read raises instead.")
def test_key_stream_is_read_once_and_shows_nothing() -> None:
    stream = KeyStream(bytes(32))
    stream.discrete_gaussian(2, SCALE)
    stream.poisson_batch(3, 0.5)
    for again in (lambda: stream.discrete_gaussian(1, SCALE), lambda: stream.poisson_batch(1, 0.5)):
        with pytest.raises(ExactnessError, match="read once"):
            again()
    assert "00" not in repr(stream)
    with pytest.raises(TypeError):
        pickle.dumps(stream)


def test_sampling_and_noise_use_different_parts_of_the_stream() -> None:
    stream = KeyStream(bytes(range(32)))
    assert stream._stream("sampling", 64) != stream._stream("noise", 64)


def test_seeded_randomness_repeats_and_depends_on_its_context() -> None:
    def draws(*context: str | int) -> list[float]:
        source = SeededRandomnessForSimulation(7, *context)
        return [*source.step().discrete_gaussian(2, SCALE), *source.step().discrete_gaussian(2, SCALE)]

    assert draws("site", 1) == draws("site", 1)
    assert draws("site", 1) != draws("site", 2)
    assert draws("site", 1)[:2] != draws("site", 1)[2:]


def test_an_arm_that_trains_fewer_entries_has_the_first_of_the_others_noise() -> None:
    def noise(count: int, drawn: int) -> list[float]:
        return SeededRandomnessForSimulation(7, "arm", drawn=drawn).step().discrete_gaussian(count, SCALE).tolist()

    assert noise(3, 8) == noise(8, 0)[:3] == noise(8, 8)[:3]
    assert noise(3, 0) != noise(8, 0)[:3]  # why it has to be said
    assert noise(9, 8) == noise(9, 0)


def in_child(draw: Callable[[], Draws]) -> bytes:
    """What a forked child draws."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, draw().tobytes())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read()


@pytest.mark.guarantee("noise drawn ahead is the step's own, asked for once and used once.")
def test_noise_drawn_ahead_is_that_of_the_step() -> None:
    key = os.urandom(32)
    now, ahead = KeyStream(key), PrefetchedNoise(KeyStream(key), 1000, SCALE)
    assert np.array_equal(ahead.poisson_batch(50, 0.3), now.poisson_batch(50, 0.3))
    assert np.array_equal(ahead.discrete_gaussian(1000, SCALE), now.discrete_gaussian(1000, SCALE))
    assert np.array_equal(ahead.uniforms(5), now.uniforms(5))
    with pytest.raises(ExactnessError, match="a second read"):
        ahead.discrete_gaussian(1000, SCALE)
    with pytest.raises(ExactnessError, match="one for 999"):
        PrefetchedNoise(KeyStream(key), 1000, SCALE).discrete_gaussian(999, SCALE)


def test_a_fault_of_noise_drawn_ahead_is_seen_where_it_is_read() -> None:
    stream = KeyStream(os.urandom(32))
    stream.discrete_gaussian(10, SCALE)
    with pytest.raises(ExactnessError, match="noise stream"):
        PrefetchedNoise(stream, 10, SCALE).discrete_gaussian(10, SCALE)


def test_noise_is_drawn_ahead_on_a_gpu_alone() -> None:
    stream = KeyStream(os.urandom(32))
    assert prefetch_noise(stream, 10, SCALE, torch.device("cpu")) is stream
    assert isinstance(prefetch_noise(stream, 10, SCALE, torch.device("cuda")), PrefetchedNoise)
