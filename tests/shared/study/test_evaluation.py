"""What a study may declare of its evaluation, and what identifies it."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.protocol.versions import SAYS_EVALUATION, SAYS_SECURE_SUM, SAYS_SUMMED_EVALUATION, SPOKEN
from shared.study.declaration import Study, recorded

Make = Callable[..., Study]
RATING = {"kind": "sequence-classification", "problem": "rating", "rating_range": [1, 5], "labels": []}
MANY = {"kind": "sequence-classification", "problem": "multi-label"}
GROUPS = {"column": "sex", "values": ["female", "male"]}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no epsilon": ({"evaluation": {}}, "evaluation.epsilon: missing"),
    "no privacy": ({"evaluation": {"epsilon": 0}}, "evaluation.epsilon"),
    "a round too late": ({"evaluation": {"epsilon": 1, "rounds": [2, 4]}}, "ascend within 1 to federation.rounds = 3"),
    "before any round": ({"evaluation": {"epsilon": 1, "rounds": [0]}}, "ascend within 1"),
    "out of order": ({"evaluation": {"epsilon": 1, "rounds": [2, 1]}}, "ascend within 1"),
    "twice": ({"evaluation": {"epsilon": 1, "rounds": [2, 2]}}, "ascend within 1"),
    "confusion of many labels": (
        {"task": MANY, "evaluation": {"epsilon": 1, "cells": "confusion"}},
        "'confusion' goes",
    ),
    "right or wrong ratings": ({"task": RATING, "evaluation": {"epsilon": 1}}, "use 'scores'"),
    "too many cells": (
        {
            "task": {"labels": [f"l{n}" for n in range(300)]},
            "evaluation": {"epsilon": 1, "cells": "confusion"},
        },
        "65536 cells at most, got 90000",
    ),
    "groups that are one": (
        {"evaluation": {"epsilon": 1, "subgroup": {"column": "s", "values": ["A", " a"]}}},
        "differ",
    ),
    "a group called other": (
        {"evaluation": {"epsilon": 1, "subgroup": {"column": "s", "values": ["Other"]}}},
        "'other'",
    ),
    "no groups": ({"evaluation": {"epsilon": 1, "subgroup": {"column": "s", "values": []}}}, "subgroup.values"),
    "the best of sums": (
        {"federation": {"secure_sum": "masked"}, "evaluation": {"epsilon": 1, "rounds": [1], "keep": "best"}},
        "do not go with federation.secure_sum",
    ),
    "an end by sums": (
        {"federation": {"secure_sum": "masked"}, "evaluation": {"epsilon": 1, "rounds": [1, 2], "stop_after": 1}},
        "do not go with federation.secure_sum",
    ),
    "the best of one": ({"evaluation": {"epsilon": 1, "keep": "best"}}, "chooses among evaluations, got only one"),
    "an end that is the end": (
        {"evaluation": {"epsilon": 1, "rounds": [1, 2], "stop_after": 2}},
        "needs at least 4 evaluations, got 3",
    ),
    "a measure for nothing": ({"evaluation": {"epsilon": 1, "measure": "accuracy"}}, "only goes with keep"),
    "a measure that is not counted": (
        {"evaluation": {"epsilon": 1, "rounds": [1], "keep": "best", "measure": "macro F1"}},
        "must be one of accuracy with these cells, got 'macro F1'",
    ),
    "a word too much": (
        {"evaluation": {"epsilon": 1, "cell": "scores"}},
        "evaluation.cell: no such key. Perhaps 'cells'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_evaluation_that_cannot_be_is_refused_by_name(case: str, make_study: Make) -> None:
    sections, words = REFUSED[case]
    with pytest.raises(SettingsError, match=words):
        make_study(**sections)


def test_a_choice_among_evaluations_is_part_of_the_identity_only_where_it_is_declared(make_study: Make) -> None:
    plain, spelled_out, best = (
        make_study(evaluation={"epsilon": 1, "rounds": [1]} | more)
        for more in ({}, {"keep": "last", "stop_after": None}, {"keep": "best"})
    )
    assert plain.sha256 == spelled_out.sha256 != best.sha256
    assert plain.chosen_among == () and best.chosen_among == (1, 3)
    assert recorded(best.model_dump(mode="json"), where="file") == best


def test_the_last_round_is_always_evaluated(make_study: Make) -> None:
    assert make_study().evaluated_after == ()
    assert make_study(evaluation={"epsilon": 1}).evaluated_after == (3,)
    assert make_study(evaluation={"epsilon": 1, "rounds": [1, 3]}).evaluated_after == (1, 3)
    assert make_study(evaluation={"epsilon": 1, "rounds": [2]}).evaluated_after == (2, 3)


def test_a_study_without_an_evaluation_is_what_it_was_and_one_with_it_asks_for_newer_nodes(make_study: Make) -> None:
    without, evaluated = make_study(), make_study(evaluation={"epsilon": 1, "subgroup": GROUPS})
    assert "evaluation" not in without.canonical_json() and "evaluation" not in without.model_dump()
    assert without.versions == SPOKEN and evaluated.versions == (SAYS_EVALUATION, SPOKEN.newest)
    assert recorded(evaluated.model_dump(mode="json"), where="file").sha256 == evaluated.sha256 != without.sha256
    summed = make_study(federation={"secure_sum": "masked"}, evaluation={"epsilon": 1})
    assert summed.versions == (SAYS_SUMMED_EVALUATION, SPOKEN.newest)
    assert make_study(federation={"secure_sum": "masked"}).versions == (SAYS_SECURE_SUM, SPOKEN.newest)
