"""Labels of a table by other names: those that its owner declares, and those that its file says."""

from pathlib import Path
from typing import Any

import pytest

from shared.records.tables import read_table
from shared.study.tasks import AudioClassification, MultiTask, SequenceClassification, TokenClassification
from shared.tasks.label_names import LabelNames
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table

DECLARED = {"1": "positive", "0": "negative"}


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("1", "positive"),
        (" 0 ", "negative"),
        ("1.0", "positive"),
        ("positive", "positive"),
        ("maybe", "maybe"),
        ("", ""),
        ("1|0", "positive|negative"),
        ("[1, 0, 2]", '["positive", "negative", "2"]'),
        ("[1, {}]", "[1, {}]"),
        ("1 0", "1 0"),
        ("[" * 3000, "[" * 3000),
    ],
)
def test_a_label_is_read_by_its_declared_name_and_others_stay(cell: str, label: str) -> None:
    assert LabelNames(DECLARED, {}, ()).read(cell) == label


def test_tags_are_read_word_by_word() -> None:
    assert LabelNames({}, {"0": "O", "1": "B-who"}, ("O", "B-who")).read("0 1  0 X", words=True) == "O B-who O X"


def test_what_the_owner_declares_comes_before_what_the_file_says() -> None:
    beside = {"0": "neg", "1": "pos"}
    assert LabelNames({"pos": "positive"}, beside, ()).read("1") == "positive"
    assert LabelNames({"1": "yes"}, beside, ()).read("1") == "yes"
    assert LabelNames({}, beside, ("0", "1")).read("1") == "1", "a study whose labels are the numbers means them"


def _sequences(*labels: str) -> SequenceClassification:
    return SequenceClassification(kind="sequence-classification", labels=labels)


@pytest.mark.parametrize("form", ["t.parquet", "folder"])
def test_numbers_of_named_labels_are_read_as_their_names_whatever_the_task(tmp_path: Path, form: str) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = {name: datasets.Value("string") for name in ("text", "task", "audio")}
    features["label"] = datasets.ClassLabel(names=["neg", "pos"])
    features["tags"] = datasets.Sequence(datasets.ClassLabel(names=["O", "B-x"]))
    features["tokens"] = datasets.Sequence(datasets.Value("string"))
    rows: dict[str, Any] = {"text": ["a", "b"], "label": [1, 0], "task": ["one", "one"], "audio": ["", ""]}
    rows |= {"tokens": [["x", "y"], ["z"]], "tags": [[0, 1], [1]]}
    data, path = datasets.Dataset.from_dict(rows, features=datasets.Features(features)), tmp_path / form
    if path.suffix:
        data.to_parquet(path)
    else:
        data.save_to_disk(str(path))
    for task in (
        _sequences("neg", "pos"),
        AudioClassification(kind="audio-classification", labels=("neg", "pos")),
        MultiTask(kind="multi-task", tasks={"one": _sequences("neg", "pos"), "two": _sequences("a", "b")}),
    ):
        reader = Table(task_kind(task), {})
        assert reader.rows(reader.read(path))["label"] == ["pos", "neg"], task.kind
    reader = Table(task_kind(_sequences("0", "1")), {})
    assert reader.rows(reader.read(path))["label"] == ["1", "0"]
    tags = Table(task_kind(TokenClassification(kind="token-classification", labels=("O", "B-x"))), {})
    assert tags.rows(tags.read(path))["tags"] == ['["O", "B-x"]', '["B-x"]']
    assert read_table(path, ["label"])["label"].tolist() == ["1", "0"], "records are known as before"
