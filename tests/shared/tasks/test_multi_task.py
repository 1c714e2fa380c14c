"""Multi-task: a record is its own task's alone, a node may lack tasks and their columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from server.export.adapter import export, load_finished
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table

PARTS: dict[str, dict[str, Any]] = {
    "items": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 16},
    "stars": {"kind": "sequence-classification", "problem": "rating", "rating_range": [1, 5], "max_length": 16},
    "names": {"kind": "token-classification", "labels": ["O", "B-PER"], "max_length": 16},
    "reading": {"kind": "question-answering", "max_length": 16},
}
TASK = {"kind": "multi-task", "tasks": PARTS}
ROWS: list[dict[str, str]] = [
    {"task": "items", "text": "good word1 word2", "label": "yes"},
    {"task": "stars", "text": "bad", "label": "2"},
    {"task": "names", "tokens": "ada lives in paris word1 word2 word3 word4", "tags": "B-PER O O O O O O O"},
    {"task": "reading", "question": "who", "context": "ada lives in paris", "answer": "ada"},
]
Studies = Callable[..., Study]


@pytest.fixture
def encode(text_study: Studies) -> Callable[..., Encoded]:
    def run(rows: list[dict[str, str]]) -> Encoded:
        study = text_study(TASK)
        kind = task_kind(study.task)
        cells = {column.name: [row.get(column.name, "") for row in rows] for column in kind.columns}
        return kind.encode(cells, load_tokenizer(find(study.model)))

    return run


def test_a_records_loss_is_its_own_tasks_alone(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    model, records = build(text_study(TASK)), encode(ROWS).records
    model.load(np.random.default_rng(2).standard_normal(model.layout.length).astype(np.float32))
    whole = model.losses(collate(records, range(4), model.kind.fills, torch.device("cpu")))
    for row, (name, part) in enumerate(PARTS.items()):
        single = build(text_study(part))
        single.base.load_state_dict(model.base.state_dict())
        single.head.load_state_dict(model.head[f"{name}_head"].state_dict())
        own = {column.name: [ROWS[row].get(column.name, "")] for column in single.kind.columns}
        expected = single.kind.encode(own, load_tokenizer(single.base_files)).records
        found = single.losses(collate(expected, [0], single.kind.fills, torch.device("cpu")))
        torch.testing.assert_close(whole[row], found[0], rtol=1e-4, atol=1e-5)


def test_evidence_is_each_tasks_own_in_the_order_of_records(
    text_study: Studies, encode: Callable[..., Encoded]
) -> None:
    model, records = build(text_study(TASK)), encode(ROWS).records
    found = evaluate(model, records, tokens=512).evidence
    assert [one[0] for one in found] == list(PARTS)
    assert found[0][2] == 1 and found[1][2] == 2.0 and found[2][2][:2] == ["B-PER", "O"] and found[3][2] == ["ada"]


def test_an_unknown_task_is_named_and_so_is_a_row_that_its_own_task_cannot_use(encode: Callable[..., Encoded]) -> None:
    bad = [{"task": "other", "text": "good"}, {"task": "items", "text": "good", "label": "?"}, {"task": ""}]
    records, problems = encode([*ROWS, *bad, ROWS[3] | {"answer": "nobody"}])
    assert records.usable.tolist() == [True] * 4 + [False] * 4
    assert {p.row: p.reason for p in problems} == {
        4: "its task 'other' is none of the study's",
        5: "its label '?' is none of the study's",
        6: "its task '' is none of the study's",
        7: "its answer 'nobody' is not in its context",
    }


def test_a_node_may_lack_tasks_and_their_columns(text_study: Studies, tmp_path: Path) -> None:
    study = text_study(TASK)
    kind = task_kind(study.task)
    pd.DataFrame(ROWS[:1] * 3)[["task", "text", "label"]].to_csv(tmp_path / "t.csv", index=False)
    reader = Table(kind, {})
    records, problems = reader.encode(reader.read(tmp_path / "t.csv"), load_tokenizer(find(study.model)))
    assert records.usable.all() and not problems
    counts = kind.counts(records)
    assert counts["items: yes"] == 3 and sum(counts.values()) == 3
    model = build(study)
    assert set(evaluate(model, records, tokens=512, with_loss=True).evidence) == {("items", 0, 1)}
    assert kind.metrics(evaluate(model, records, tokens=512).evidence)["mean_score"] == 0.0


def test_metrics_are_each_tasks_own_and_the_mean_of_the_main_ones(text_study: Studies) -> None:
    kind = task_kind(text_study(TASK).task)
    stars = [("stars", guess, truth) for guess, truth in ((1.0, 2.0), (2.0, 3.0), (5.0, 4.0))]
    found = kind.metrics([("items", 1, 1), ("items", 0, 1), *stars, ("reading", "ada", ["Ada"])])
    assert found["items_accuracy"] == 0.5 and found["stars_mse"] == 1.0 and found["reading_f1"] == 1.0
    assert found["mean_score"] == pytest.approx((0.5 + 1.0 + 1.0) / 3)  # names has no records here
    assert kind.metrics([])["mean_score"] == 0.0


def test_the_constant_answers_are_each_tasks_own(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    kind, records = task_kind(text_study(TASK).task), encode(ROWS).records
    found = kind.constant([records], records) or []
    assert found[:2] == [("items", 1, 1), ("stars", 2.0, 2.0)] and [one[0] for one in found] == list(PARTS)
    backwards = records.select(np.arange(len(records))[::-1])
    assert kind.constant([records], backwards) == found[::-1], "in the records' order, whichever task they are of"


@pytest.mark.parametrize(
    "tasks", [{"one": PARTS["items"]}, PARTS | {"Upper": PARTS["items"]}, PARTS | {"x": {"kind": "masked-lm"}}]
)
def test_what_is_no_set_of_text_tasks_is_refused(text_study: Studies, tasks: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="task"):
        text_study({"kind": "multi-task", "tasks": tasks})


def test_a_finished_model_is_asked_about_one_task_alone(text_study: Studies, tmp_path: Path) -> None:
    study = text_study(TASK)
    export(study, build(study).packed(), tmp_path)
    answers = load_finished(tmp_path).predict({"task": ["items", "stars"], "text": ["good", "bad word1"]})
    assert answers[0] in TASK["tasks"]["items"]["labels"] and isinstance(answers[1], float), "and no name of a task"
    with pytest.raises(SettingsError, match="Expected columns task"):
        load_finished(tmp_path).predict({"text": ["good"]})
