"""The next adapter of an opened sum: the bytes of today's mean, and no sum that honest nodes cannot have made."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from server.aggregation.mean import UniformMean
from server.aggregation.opened_sum import step_from_sum, step_numbers
from server.secure_sum.step import SumRefused, step_of
from shared.adapted_model.model import initial_adapter, layout_of
from shared.protocol.fixed_point import as_integers
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study

SIZES = Thresholds(5, 4, 1)


@pytest.mark.guarantee("masked updates make the adapter that the same updates make without masks, to the last byte.")
def test_masked_updates_step_as_their_plain_mean_does(make_study: Callable[..., Study]) -> None:
    study, random = make_study(federation={"secure_sum": "masked"}), np.random.default_rng(3)
    current = random.normal(size=500).astype(np.float32)
    # of very different sizes, with values that no float32 grid holds exactly
    updates = [(random.normal(size=500) * 10.0**power).astype(np.float32) for power in (-6, -3, 0, 1, 2)]
    plain = UniformMean(500)
    for update in updates:
        plain.add(update)
    total = sum((as_integers(update).view(np.uint64) for update in updates), np.zeros(500, np.uint64)).view(np.int64)
    step = step_of(study, None, lambda: SIZES, lambda _number: 1e6)  # type: ignore[arg-type]
    assert step(1, total, 5, current).tobytes() == plain.result(current).tobytes()


def test_a_sum_in_which_somebody_put_anything_changes_no_adapter(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"secure_sum": "masked"})
    garbage = np.random.default_rng(4).integers(-(2**63), 2**63, 500, dtype=np.int64)
    step = step_of(study, None, lambda: SIZES, lambda _number: 100.0)  # type: ignore[arg-type]
    with pytest.raises(SumRefused, match="longer than noise and clipping"):
        step(1, garbage, 5, np.zeros(500, np.float32))


def shared_study(make_study: Callable[..., Study]) -> Study:
    federation: dict[str, Any] = {"secure_sum": "shared", "rounds": 4, "typical_size": 300}
    return make_study(federation=federation, training={"local_steps": 1})


def test_shared_noise_steps_by_the_public_numbers_of_the_round_and_too_little_of_it_is_refused(
    make_study: Callable[..., Study],
) -> None:
    study = shared_study(make_study)
    layout, current = layout_of(study), initial_adapter(study)
    step = step_of(study, layout, lambda: SIZES, lambda _number: 1.0)
    numbers = step_numbers(study, layout, 2, SIZES)
    noise = np.rint(np.random.default_rng(5).normal(size=len(current)) * numbers.noise_scale * 1.05).astype(np.int64)
    expected = (current.astype(np.float64) + step_from_sum(noise, 4, numbers)).astype(np.float32)
    np.testing.assert_array_equal(step(2, noise, 4, current), expected)
    with pytest.raises(SumRefused, match="too-little-noise"):
        step(2, noise // 2, 4, current)
