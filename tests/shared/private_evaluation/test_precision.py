"""What `plan` says beforehand is what the noise of a study gives."""

from collections.abc import Callable

import pytest

from shared.private_evaluation.intervals import Z
from shared.private_evaluation.noise import sigma
from shared.private_evaluation.precision import expected_estimates, half_width
from shared.study.declaration import Study


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_the_noise_of_an_accuracy_grows_with_the_classes_of_a_confusion(
    classes: int, make_study: Callable[..., Study]
) -> None:
    study = make_study(
        task={"labels": [f"label {number}" for number in range(classes)]},
        evaluation={"epsilon": 1.0, "cells": "confusion"},
    )
    units, noise = 20_000.0, sigma(study)
    # of R - rho N: K cells right, each (1 - rho), and K (K - 1) others, each rho; rho = 0.8
    deviation = noise * (classes * 0.2**2 + classes * (classes - 1) * 0.8**2) ** 0.5 / units
    accuracy = next(one for one in expected_estimates(study, units) if one.measure == "accuracy")
    assert accuracy.low_here is not None and accuracy.high_here is not None
    assert (accuracy.high_here - accuracy.low_here) / 2 == pytest.approx(Z * deviation, rel=0.01)


def test_of_200_units_at_epsilon_1_the_noise_is_three_points(make_study: Callable[..., Study]) -> None:
    study = make_study(evaluation={"epsilon": 1.0})
    accuracy = next(one for one in expected_estimates(study, 200.0) if one.measure == "accuracy")
    assert accuracy.value == pytest.approx(0.8, abs=1e-6)
    assert accuracy.low_here is not None and accuracy.high_here is not None
    assert (accuracy.high_here - accuracy.low_here) / 2 == pytest.approx(0.03, abs=0.004)
    width = half_width(accuracy)
    assert width is not None and width > 0.055, "and the draw of 200 units adds more than that"


def test_a_node_too_small_is_said_to_show_nothing(make_study: Callable[..., Study]) -> None:
    accuracy = next(
        one for one in expected_estimates(make_study(evaluation={"epsilon": 0.5}), 20.0) if one.measure == "accuracy"
    )
    assert half_width(accuracy) is None
