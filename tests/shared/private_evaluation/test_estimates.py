"""Estimates are fairlearn's of the same cells; intervals hold the truth; what is noise is not shown."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from client.vault.training.randomness import KeyStream
from shared.private_evaluation.cells import STEPS, Cells, in_units
from shared.private_evaluation.estimates import Estimate, estimates
from shared.private_evaluation.noise import sigma
from shared.study.declaration import Study

GROUPS = {"column": "sex", "values": ["women", "men"]}
QUIET = 1e-9
Histograms = Mapping[str, NDArray[np.int64]]


def cells_of(make_study: Callable[..., Study], **evaluation: Any) -> Cells:
    return Cells.of(make_study(evaluation={"epsilon": 1.0, **evaluation}))


def random_counts(cells: Cells, *sites: str, seed: int = 26) -> Histograms:
    generator = np.random.default_rng(seed)
    return {site: generator.integers(5, 80, cells.length) * STEPS for site in sites}


Place = tuple[str, str, str, str]


def place_of(one: Estimate) -> Place:
    return one.scope, one.name, one.measure, one.label


def by_place(found: tuple[Estimate, ...]) -> dict[Place, Estimate]:
    return {place_of(one): one for one in found}


def test_estimates_from_a_confusion_are_those_of_fairlearn(make_study: Callable[..., Study]) -> None:
    cells = cells_of(make_study, cells="confusion", subgroup=GROUPS)
    sites = random_counts(cells, "a", "b")
    found = by_place(estimates(cells, sites, QUIET))
    frame = frame_of(cells, in_units(sites["a"] + sites["b"]))
    labels = {"accuracy": "", "macro F1": ""}
    for name, value in frame.overall.items():
        if name in labels:
            assert found["all sites", "", name, ""].value == pytest.approx(value)
    for group, row in frame.by_group.iterrows():
        for name, value in row.items():
            assert found["subgroup", str(group), str(name), labels.get(str(name), "yes")].value == pytest.approx(value)
    declared = frame_of(cells, in_units(sites["a"] + sites["b"]), without="other")
    for name, value in declared.difference("between_groups").items():
        assert found["gap", "", name, labels.get(name, "yes")].value == pytest.approx(value), name


def frame_of(cells: Cells, counts: NDArray[np.float64], without: str = "") -> MetricFrame:
    """One row for each cell, its count as the weight."""
    rows = [(*names, count) for names, count in zip(cells.names, counts, strict=True) if names[0] != without]
    groups, truths, predictions, weights = (list(column) for column in zip(*rows, strict=True))
    metrics: dict[str, Any] = {
        "accuracy": accuracy_score,
        "macro F1": lambda true, guess, **more: f1_score(true, guess, average="macro", **more),
        "selection rate": lambda true, guess, **more: selection_rate(true, guess, pos_label="yes", **more),
        "true-positive rate": lambda true, guess, **more: true_positive_rate(true, guess, pos_label="yes", **more),
        "false-positive rate": lambda true, guess, **more: false_positive_rate(true, guess, pos_label="yes", **more),
    }
    parameters = {name: {"sample_weight": weights} for name in metrics}
    return MetricFrame(
        metrics=metrics, y_true=truths, y_pred=predictions, sensitive_features=groups, sample_params=parameters
    )


def test_the_confusion_matrix_is_in_shares_of_the_true_label(make_study: Callable[..., Study]) -> None:
    cells = cells_of(make_study, cells="confusion")
    found = by_place(estimates(cells, {"a": np.array([30, 10, 5, 15]) * STEPS}, QUIET))
    assert found["true label", "no", "share predicted", "yes"].value == pytest.approx(0.25)
    assert found["true label", "yes", "share predicted", "yes"].value == pytest.approx(0.75)


def test_calibration_is_by_bin_and_over_all(make_study: Callable[..., Study]) -> None:
    cells = cells_of(make_study, cells="scores", bins=2)
    counts = np.zeros(cells.shape, np.int64)
    counts[0, 0] = [10 * STEPS, 30 * STEPS]
    counts[0, 1] = [60 * STEPS, 20 * STEPS]
    found = by_place(estimates(cells, {"a": counts.ravel()}, QUIET))
    assert found["confidence", "0", "accuracy", ""].value == pytest.approx(0.25)
    assert found["confidence", "0.5", "accuracy", ""].value == pytest.approx(0.75)
    mean_confidence = (0.25 * 40 + 0.75 * 80) / 120
    assert found["all sites", "", "confidence above accuracy", ""].value == pytest.approx(mean_confidence - 70 / 120)


def test_scores_of_other_tasks_have_a_mean(make_study: Callable[..., Study]) -> None:
    rating = {"problem": "rating", "rating_range": [1, 5], "labels": []}
    cells = Cells.of(make_study(task=rating, evaluation={"epsilon": 1.0, "cells": "scores", "bins": 4}))
    found = by_place(estimates(cells, {"a": np.array([0, 0, 40, 40]) * STEPS}, QUIET))
    assert found["all sites", "", "mean score", ""].value == pytest.approx(0.75)


def test_the_worst_site_is_named(make_study: Callable[..., Study]) -> None:
    cells = cells_of(make_study)
    sites = {"a": np.array([90, 10]) * STEPS, "b": np.array([60, 40]) * STEPS, "c": np.array([1, 2]) * STEPS}
    worst = next(one for one in estimates(cells, sites, 3.73) if one.scope == "worst site")
    assert (worst.name, worst.value) == ("b", pytest.approx(0.6)), "of c nothing is known"


def test_a_group_of_three_people_is_not_shown(make_study: Callable[..., Study]) -> None:
    cells = cells_of(make_study, cells="confusion", subgroup=GROUPS)
    counts = np.full(cells.shape, 80 * STEPS)
    counts[1] = [[STEPS, 0], [STEPS, STEPS]]
    found = by_place(estimates(cells, {"a": counts.ravel()}, 3.73))
    of_men = [one for one in found.values() if one.scope == "subgroup" and one.name == "men" and one.measure != "units"]
    assert of_men and all((one.value, one.low, one.high, one.low_here, one.high_here) == (None,) * 5 for one in of_men)
    assert found["gap", "", "accuracy", ""].value is None, "one group has no gap"
    assert found["subgroup", "women", "accuracy", ""].value == pytest.approx(0.5)


def test_no_site_makes_no_estimate(make_study: Callable[..., Study]) -> None:
    assert estimates(cells_of(make_study), {}, 3.73) == ()


def test_of_2000_released_evaluations_the_truth_is_in_every_interval(make_study: Callable[..., Study]) -> None:
    study = make_study(evaluation={"epsilon": 2.0})
    cells, noise = Cells.of(study), sigma(study)
    truth = np.array([[90, 30], [60, 25]])
    released = KeyStream(b"k" * 32).discrete_gaussian(2000 * truth.size, noise * STEPS).reshape(2000, *truth.shape)
    expected = by_place(estimates(cells, {"a": truth[0] * STEPS, "b": truth[1] * STEPS}, QUIET))
    hits = dict.fromkeys(expected, 0)
    for each in released + truth * STEPS:
        for one in estimates(cells, dict(zip("ab", each, strict=True)), noise):
            where = (
                next(place for place in expected if place[0] == one.scope)
                if one.scope == "worst site"
                else place_of(one)
            )
            value = expected[where].value
            assert value is not None and one.low_here is not None and one.high_here is not None
            hits[where] += one.low_here <= value <= one.high_here
    for place, count in hits.items():
        assert 0.94 <= count / 2000 <= (1 if place[0] == "worst site" else 0.96), place
