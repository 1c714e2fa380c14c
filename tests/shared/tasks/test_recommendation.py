"""Recommendation: ids are fixed public directions, ratings are judged by error, groups by NDCG@10."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from shared.adapted_model.model import build
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.study.tasks import CONTENT
from shared.tasks.recommendation import direction, ndcg_of_groups
from shared.tasks.registry import task_kind
from shared.tasks.task_table import counted

TASK = {"kind": "recommendation", "rating_range": [1, 5], "ids": ["user", "shop"], "id_width": 12, "max_length": 16}
Studies = Callable[..., Study]


@pytest.fixture
def encode(text_study: Studies) -> Callable[..., Encoded]:
    def run(rows: list[dict[str, str]], **changed: Any) -> Encoded:
        study = text_study(TASK | changed)
        kind = task_kind(study.task)
        cells = {column.name: [row.get(column.name, "") for row in rows] for column in kind.columns}
        return kind.encode(cells, load_tokenizer(find(study.model)))

    return run


def test_an_id_has_one_direction_of_length_one_and_others_are_far(encode: Callable[..., Encoded]) -> None:
    assert np.array_equal(direction("user", "u1", width=32), direction("user", " u1 ", width=32))
    drawn = np.stack([direction("user", f"u{n}", width=512) for n in range(50)] + [direction("shop", "u1", width=512)])
    likeness = drawn @ drawn.T - np.eye(51)
    assert np.allclose(np.linalg.norm(drawn, axis=1), 1) and abs(likeness).max() < 0.25  # 5.6 sigma
    assert not direction("user", " ", width=5).any() and len(direction("user", "x", width=5)) == 5
    found = encode([{"text": "good", "rating": "5", "user": "u1", "shop": "s"}]).records["directions"][0]
    expected = [direction("user", "u1", width=12), direction("shop", "s", width=12)]
    assert np.array_equal(found, np.concatenate(expected))


def test_the_head_reads_the_text_and_the_ids(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    model = build(text_study(TASK))
    model.head.weight.data[0, 32:44] = torch.from_numpy(direction("user", "u1", width=12))
    rows = [{"text": "good", "rating": "5", "user": user} for user in ("u1", "u2", "")]
    outputs = model.outputs(collate(encode(rows).records, [0, 1, 2], model.kind.fills, torch.device("cpu")))
    first, second, third = outputs[:, 0].tolist()
    assert first == pytest.approx(1) and second < 0.9 and third == 0


def test_bad_rows_are_named_and_ratings_beyond_the_range_cut_off(encode: Callable[..., Encoded]) -> None:
    rows = [("good", "9"), ("", "3"), ("bad", "three"), ("bad", "nan"), ("bad", "1")]
    records, problems = encode([{"text": text, "rating": rating} for text, rating in rows])
    assert records.usable.tolist() == [True, False, False, False, True]
    assert records["target"].values.tolist() == [1.0, 0.0, 0.0, 0.0, -1.0]
    assert [(p.row, p.reason[:10]) for p in problems[:3]] == [(1, "its text i"), (2, "its rating"), (3, "its rating")]
    assert counted(problems) == ["1 ratings lie outside of rating_range, and were read as 1 or 5."]


def test_groups_are_ranked_as_scikit_learn_ranks_them() -> None:
    generator = np.random.default_rng(5)
    truths, guesses = generator.integers(1, 6, (3, 14)).astype(float), generator.standard_normal((3, 14))
    evidence = [(guesses[g, i], truths[g, i], f"g{g}") for g in range(3) for i in range(14)]
    lone = [(0.1, 5.0, ""), (0.2, 3.0, "alone"), (0.3, 2.0, "equal"), (0.4, 2.0, "equal")]
    assert ndcg_of_groups(evidence + lone, lowest=1.0) == pytest.approx(ndcg_score(truths - 1, guesses, k=10))
    assert ndcg_of_groups(lone, lowest=1.0) == 0.0


def test_ndcg_by_hand() -> None:
    evidence = [(3.0, 2.0, "g"), (2.0, 5.0, "g"), (1.0, 1.0, "g")]  # gains 1, 4, 0 in the guessed order
    expected = (1 + 4 / np.log2(3)) / (4 + 1 / np.log2(3))
    assert ndcg_of_groups(evidence, lowest=1.0) == pytest.approx(expected)


def test_the_goal_decides_the_metric_and_the_columns(text_study: Studies) -> None:
    rating, ranking = (task_kind(text_study(TASK | {"goal": goal}).task) for goal in ("rating", "ranking"))
    assert (rating.metric, rating.higher_is_better) == ("mse", False)
    assert (ranking.metric, ranking.higher_is_better) == ("ndcg_at_10", True)
    assert [column.name for column in rating.columns] == ["text", "rating", "user", "shop"]
    assert [column.name for column in ranking.columns] == ["text", "rating", "user", "shop", "group"]
    assert [column.name for column in ranking.columns if column.name in CONTENT] == ["text"]
    found = ranking.metrics([(2.0, 1.0, "g"), (5.0, 4.0, "g")])
    assert found == {"ndcg_at_10": 1.0, "mse": 1.0, "spearman": pytest.approx(1.0)}
    assert rating.metrics([]) == {"mse": 16.0, "spearman": 0.0} and ranking.metrics([])["ndcg_at_10"] == 0.0


def test_one_rating_for_all_orders_nothing(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    rows = [{"text": "good", "rating": rating, "group": "g"} for rating in ("1", "5")]
    records, kind = encode(rows, goal="ranking").records, task_kind(text_study(TASK | {"goal": "ranking"}).task)
    evidence = kind.constant([records], records) or []
    assert evidence == [(3.0, 1.0, "g"), (3.0, 5.0, "g")] and kind.counts(records) == {"below 3": 1, "3 and above": 1}
    assert kind.metrics(evidence)["ndcg_at_10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)  # the mean of both orders


@pytest.mark.parametrize("changed", [{"rating_range": [5, 1]}, {"id_width": 0}, {"goal": "clicks"}])
def test_what_makes_no_sense_is_refused(text_study: Studies, changed: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(changed))):
        text_study(TASK | changed)
