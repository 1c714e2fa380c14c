"""The cells follow from the study alone, and every outcome has one."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from shared.private_evaluation.cells import Cells, Outcome
from shared.study.declaration import Study
from shared.study.evaluation import cells_shape

GROUPS = {"column": "sex", "values": ["female", "male"]}
RATING = {"problem": "rating", "rating_range": [1, 5], "labels": []}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {
    "right-wrong": ({}, {}, (1, 2)),
    "groups": ({}, {"subgroup": GROUPS}, (3, 2)),
    "confusion": ({}, {"cells": "confusion", "subgroup": GROUPS}, (3, 2, 2)),
    "confidence": ({}, {"cells": "scores", "bins": 5}, (1, 5, 2)),
    "scores": (RATING, {"cells": "scores", "subgroup": GROUPS}, (3, 10)),
}


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.guarantee("number, names and order of the cells follow from the study alone.")
def test_the_cells_of_a_study(case: str, make_study: Callable[..., Study]) -> None:
    task, evaluation, shape = LAYOUTS[case]
    study = make_study(task=task, evaluation={"epsilon": 1.0} | evaluation)
    assert study.evaluation is not None
    cells = Cells.of(study)
    assert cells.shape == cells_shape(study.evaluation, study.task) == shape
    assert len(cells.names) == len(set(cells.names)) == cells.length == math.prod(shape)
    places = {cells.index(*place) for place in every_outcome(shape[0])}
    assert places == set(range(cells.length)), "each cell is some outcome's"


def every_outcome(groups: int) -> list[tuple[int, Outcome]]:
    grid = [number / 20 for number in range(21)]
    return [
        (group, Outcome(score, confidence, truth, prediction))
        for group in range(groups)
        for score in grid
        for confidence in grid
        for truth in range(2)
        for prediction in range(2)
    ]


def test_names_stand_in_the_order_of_the_index(make_study: Callable[..., Study]) -> None:
    cells = Cells.of(make_study(evaluation={"epsilon": 1.0, "cells": "confusion", "subgroup": GROUPS}))
    assert cells.names[cells.index(1, Outcome(0.0, truth=0, prediction=1))] == ("male", "no", "yes")
    assert cells.names[cells.index(2, Outcome(1.0, truth=1, prediction=1))] == ("other", "yes", "yes")


@pytest.mark.parametrize(
    ("score", "place"), [(math.nan, 0), (-1.0, 0), (0.0, 0), (0.1, 1), (0.999, 9), (1.0, 9), (math.inf, 9)]
)
def test_every_score_has_a_bin(score: float, place: int, make_study: Callable[..., Study]) -> None:
    cells = Cells.of(make_study(task=RATING, evaluation={"epsilon": 1.0, "cells": "scores"}))
    assert cells.index(0, Outcome(score)) == place
