"""Predictions as a table: plain values beside the truth, whatever the task."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from shared.study.parsing import parse
from shared.study.tasks import CausalLanguageModel, MultiTask
from shared.tasks.registry import task_kind
from simulations.engines.worker import Seen
from simulations.results.stored_tables import PREDICTIONS, predictions_frame, read_predictions

LABELS = {"kind": "sequence-classification", "labels": ["no", "yes"]}
RATING = {"kind": "sequence-classification", "problem": "rating", "rating_range": [1, 5]}
SEVERAL = {"kind": "multi-task", "tasks": {"items": LABELS, "stars": RATING}}


def stored(task: Any, evidence: list[Any], rows: dict[str, list[int]]) -> pd.DataFrame:
    frame = predictions_frame({"federated": [Seen("north", evidence)]}, task_kind(task), rows)
    return pd.read_parquet(io.BytesIO(frame.to_parquet()))


def test_answers_of_several_types_are_texts_without_quotes() -> None:
    evidence = [("items", 1, 0), ("stars", 4.5, 5.0)]
    table = stored(parse(MultiTask, SEVERAL, where="test"), evidence, {"north": [7, 3]})
    assert list(table.prediction) == ["yes", "4.5"] and list(table.truth) == ["no", "5.0"]
    assert list(table.row) == [7, 3] and list(table.record) == [0, 1]
    assert json.loads(table.evidence[0]) == ["items", 1, 0]


def test_what_is_counted_has_neither_a_prediction_nor_a_truth() -> None:
    """A language model's evidence is a loss and how many tokens were foreseen."""
    table = stored(parse(CausalLanguageModel, {"kind": "causal-lm"}, where="test"), [(2.5, 3, 4)], {})
    assert table.prediction.isna().all() and table.truth.isna().all() and list(table.score) == [0.75]
    assert table.row.isna().all(), "a run that was prepared before rows were counted"


def test_numbers_stay_numbers() -> None:
    kind = parse(MultiTask, SEVERAL, where="test").tasks["stars"]
    assert list(stored(kind, [(4.5, 3.0), (2.0, 3.0)], {}).prediction) == [4.5, 2.0]


def test_half_a_character_costs_no_table() -> None:
    """JSON lines may hold a lone surrogate, which no file of UTF-8 can."""
    items = LABELS | {"labels": ["no", "y\ud83d"]}
    task = parse(MultiTask, SEVERAL | {"tasks": {"items": items, "stars": RATING}}, where="test")
    assert list(stored(task.tasks["items"], [(1, 0)], {}).prediction) == ["y?"]


def test_predictions_from_before_truths_were_written_are_read(tmp_path: Path) -> None:
    answers = {
        "arm": "federated",
        "site": "north",
        "record": 0,
        "prediction": '"yes"',
        "evidence": "[1, 0]",
        "score": 1,
    }
    pd.DataFrame([answers]).to_parquet(tmp_path / PREDICTIONS)
    table = read_predictions(tmp_path)
    assert list(table.prediction) == ["yes"] and table.truth.isna().all() and table.row.isna().all()
