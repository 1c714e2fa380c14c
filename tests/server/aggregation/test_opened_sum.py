"""The step that follows from an opened sum, by hand; and sums that no honest nodes made."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.aggregation.mean import UniformMean
from server.aggregation.opened_sum import OpenedSum, Suspicion, next_adapter, step_from_sum, step_numbers, suspicion
from shared.adapted_model.model import layout_of
from shared.errors import PeerError
from shared.privacy.adapter_bound import AdapterBound
from shared.privacy.grid import GRID, NOISE_STEPS
from shared.privacy.noise_schedule import schedule_of
from shared.protocol.fixed_point import as_integers
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study

SIZES = Thresholds(10, 8, 1)
Studies = Callable[..., Study]
SHARED: dict[str, Any] = {
    "federation": {"rounds": 4, "secure_sum": "shared", "typical_size": 50},
    "training": {"local_steps": 1, "learning_rate": 8.0, "adapter_learning_rate": 0.5},
    "privacy": {"sampling_rate": 0.2, "clip_norm": 2.0},
}


def test_masked_sums_give_the_bits_of_the_plain_mean() -> None:
    generator, current = np.random.default_rng(0), np.float32(0.1) * np.arange(500, dtype=np.float32)
    updates = [(generator.standard_normal(500) * 10.0**k).astype(np.float32) for k in (-6, -3, -1, 0, 2)]
    plain, masked = UniformMean(500), OpenedSum(500)
    for update in updates:
        plain.add(update)
        masked.add(as_integers(update))  # type: ignore[arg-type]
    assert plain.result(current).tobytes() == next_adapter(current, masked.total, masked.nodes, None).tobytes()


def test_a_shared_step_is_rate_times_gradient_over_the_public_divisor(make_study: Studies) -> None:
    study = make_study(**SHARED)
    layout = layout_of(study)
    total = np.random.default_rng(1).integers(-(2**40), 2**40, layout.length)
    for number, factor in ((1, 1.0), (3, 0.5)):
        step = step_from_sum(total, 8, step_numbers(study, layout, number, SIZES))
        start = 0
        for name, shape in layout.tensors:
            rate, size = 8.0 if name.startswith("head.") else 0.5, math.prod(shape)
            by_hand = -factor * rate * (2.0 * GRID * total[start : start + size]) / (0.2 * 50 * 8)
            np.testing.assert_allclose(step[start : start + size], by_hand, rtol=1e-12)
            start += size
    current = np.ones(layout.length, np.float32)
    numbers = step_numbers(study, layout, 1, SIZES)
    assert (
        next_adapter(current, total, 8, numbers).tobytes()
        == (1.0 + step_from_sum(total, 8, numbers)).astype(np.float32).tobytes()
    )


def test_sums_wrap_as_masks_do(make_study: Studies) -> None:
    study = make_study(**SHARED)
    length, generator = layout_of(study).length, np.random.default_rng(2)
    values = [generator.integers(-(2**45), 2**45, length) for _ in range(3)]
    mask = generator.integers(-(2**63), 2**63 - 1, length)
    plain, masked = OpenedSum(length), OpenedSum(length)
    for value, hidden in zip(values, (values[0] + mask, values[1] - mask, values[2]), strict=True):
        plain.add(value)  # type: ignore[arg-type]
        masked.add(hidden)  # type: ignore[arg-type]
    assert plain.total.tobytes() == masked.total.tobytes() and plain.nodes == masked.nodes == 3
    with pytest.raises(PeerError, match="whole numbers"):
        plain.add(np.zeros(length, np.float32))


def drawn(study: Study, length: int, shares: float, seed: int) -> NDArray[np.int64]:
    scale = schedule_of(study).noise_multiplier * NOISE_STEPS * math.sqrt(shares / 7)
    return np.rint(scale * np.random.default_rng(seed).standard_normal(length)).astype(np.int64)


def test_honest_sums_are_never_suspected_and_those_without_their_noise_are(make_study: Studies) -> None:
    """A false alarm once in e^18; noise of two thirds is found in every one of these."""
    study = make_study(**SHARED)
    layout = layout_of(study)
    numbers = step_numbers(study, layout, 1, SIZES)
    for seed in range(20):
        for shares in (7, 8, 10):
            assert suspicion(drawn(study, layout.length, shares, seed), 10, numbers) is None
        assert suspicion(drawn(study, layout.length, 7 * 4 / 9, seed), 8, numbers) is Suspicion.NOISE
    assert suspicion(np.zeros(layout.length, np.int64), 8, numbers) is Suspicion.NOISE
    hostile = np.random.default_rng(0).integers(-(2**62), 2**62, layout.length)
    assert suspicion(hostile, 8, numbers) is Suspicion.NORM


def test_a_sum_of_the_longest_gradients_is_not_suspected(make_study: Studies) -> None:
    study = make_study(**SHARED)
    layout = layout_of(study)
    numbers = step_numbers(study, layout, 1, SIZES)
    total = drawn(study, layout.length, 10, 0)
    total[0] += int(10 * numbers.largest_signal)
    assert suspicion(total, 10, numbers) is None


def test_noise_that_nodes_share_never_leads_an_adapter_beyond_what_nodes_accept(make_study: Studies) -> None:
    """Also where only h nodes are left, and all of their noise is as far out as it ever is."""
    study = make_study(**SHARED)
    layout = layout_of(study)
    start = np.zeros(layout.length, np.float32)
    bound, adapter = AdapterBound(study, layout, start), start
    for number in range(1, 4):
        total = np.rint(1.5 * drawn(study, layout.length, 10, number)).astype(np.int64)
        adapter = next_adapter(adapter, total, 8, step_numbers(study, layout, number, SIZES))
        assert bound.admits(number + 1, adapter) and adapter.any()
