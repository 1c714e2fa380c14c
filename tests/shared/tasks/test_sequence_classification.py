"""Sequence classification beyond one text and one label: pairs, several labels, ratings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from client.vault.training.gradient_probe import probe
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.privacy.noise_schedule import plan
from shared.records.batches import collate
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from shared.tasks.sequence_classification import ManyLabels, OneLabel, Rating
from shared.tasks.task_table import counted

BASE: dict[str, Any] = {"kind": "sequence-classification", "max_length": 24}
PAIR = BASE | {"labels": ["no", "yes"], "pair": True}
MANY = BASE | {"labels": ["a", "b", "c"], "problem": "multi-label"}
RATING = BASE | {"problem": "rating", "rating_range": [-4, 4]}
Studies = Callable[..., Study]


@pytest.fixture
def encode(text_study: Studies) -> Callable[..., Encoded]:
    def run(task: dict[str, Any], rows: list[tuple[str, ...]], family: str = "bert") -> Encoded:
        study = text_study(task, family)
        kind = task_kind(study.task)
        cells = {column.name: [row[number] for row in rows] for number, column in enumerate(kind.columns)}
        return kind.encode(cells, load_tokenizer(find(study.model)))

    return run


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(("task", "method"), [(PAIR, "lora"), (MANY, "ffa-lora"), (RATING, "dora")])
def test_every_goal_is_exact(
    text_study: Studies, tmp_path: Path, device: torch.device, task: dict[str, Any], method: str, family: str
) -> None:
    aggregation = {"aggregation": "ffa" if method == "ffa-lora" else "fedit"}
    study = text_study(task, family, adapter={"method": method, "layers": "last:1"}, federation=aggregation)
    model = build(study).to(device)
    activations = open_activations(
        model, model.kind.synthetic(model.config, [3], variant=0), device, folder=None, limit_bytes=0
    )
    planned, rates = plan(study.privacy, steps=4), LearningRates(1.0, 1.0)
    trainer = PrivateTrainer(
        model, activations, planned, divisor_size=1000, learning_rates=rates, micro_batch_tokens=512
    )
    assert probe(trainer, cache=tmp_path).worst < 1e-5


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_pair_is_told_apart_where_the_model_can(
    text_study: Studies, encode: Callable[..., Encoded], family: str
) -> None:
    records = encode(PAIR, [("good", "ada lives", "yes"), ("ada lives", "good", "yes")], family).records
    assert set(records["types"].values.tolist()) == ({0, 1} if family == "bert" else {0})
    model = build(text_study(PAIR, family))
    model.head.weight.data.normal_()
    one, other = model.outputs(collate(records, [0, 1], model.kind.fills, torch.device("cpu")))
    assert not torch.allclose(one, other)


def test_a_pair_is_told_apart_though_the_folder_does_not_ask_for_it(
    text_study: Studies, text_bert: Path, tmp_path: Path
) -> None:
    rows = {"text": ["good", "ada lives"], "text_pair": ["ada lives", "good"], "label": ["yes", "no"]}
    shutil.copytree(text_bert, tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    plain = {"tokenizer_class": "TokenizersBackend", "model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | plain))
    for task in (PAIR, BASE | {"labels": ["no", "yes"]}):
        usual, other = (
            task_kind(study.task).encode(rows, load_tokenizer(find(study.model))).records
            for study in (text_study(task), text_study(task, model={"source": str(tmp_path / "base")}))
        )
        assert [usual.content(row) for row in range(2)] == [other.content(row) for row in range(2)]


def test_a_cell_names_any_number_of_labels(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    rows = [("good", "a|c"), ("good", ""), ("good", " b "), ("good", "a|z"), ("", "a")]
    records, problems = encode(MANY, rows)
    assert [records["target"][row].tolist() for row in range(3)] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert records.usable.tolist() == [True, True, True, False, False]
    assert [(p.row, p.reason[:9]) for p in problems] == [(3, "its label"), (4, "its text ")]
    kind = task_kind(text_study(MANY).task)
    assert kind.counts(records) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("cell", "usable", "target"),
    [
        ('["a", "c"]', True, [1, 0, 1]),
        ("[]", True, [0, 0, 0]),
        ('[" b "]', True, [0, 1, 0]),
        ('["z"]', False, [0, 0, 0]),
        ('["a", "b", "a"]', False, [0, 0, 0]),
        ('["a", 1]', False, [0, 0, 0]),
        ("[" * 5000, False, [0, 0, 0]),
    ],
)
def test_a_list_of_labels_is_one_cell(
    encode: Callable[..., Encoded], cell: str, usable: bool, target: list[int]
) -> None:
    records, _ = encode(MANY, [("good", cell)])
    assert records.usable.tolist() == [usable] and records["target"][0].tolist() == target


def test_many_labels_are_judged_as_scikit_learn_judges_them(text_study: Studies) -> None:
    guess, truth = np.random.default_rng(1).integers(0, 2, (2, 40, 3))
    found = task_kind(text_study(MANY).task).metrics(list(zip(guess.tolist(), truth.tolist(), strict=True)))
    assert found == {
        "macro_f1": pytest.approx(np.mean([f1_score(truth[:, k], guess[:, k]) for k in range(3)])),
        "micro_f1": pytest.approx(f1_score(truth.ravel(), guess.ravel())),
        "exact_match": pytest.approx((guess == truth).all(1).mean()),
    }


def test_ratings_are_cut_off_and_what_is_no_number_is_named(encode: Callable[..., Encoded]) -> None:
    records, problems = encode(RATING, [("good", "2"), ("good", "9"), ("good", "much"), ("good", "inf")])
    assert records["target"].values.tolist() == [0.5, 1.0, 0.0, 0.0] and [p.row for p in problems] == [2, 3, 1]
    assert counted(problems) == ["1 ratings lie outside of rating_range, and were read as -4 or 4."]


def test_ratings_are_judged_on_their_own_scale(text_study: Studies) -> None:
    guess, truth = np.random.default_rng(1).uniform(-4, 4, (2, 30))
    kind = task_kind(text_study(RATING).task)
    found = kind.metrics(list(zip(guess.tolist(), truth.tolist(), strict=True)))
    assert found == {
        "mse": pytest.approx(np.square(guess - truth).mean()),
        "spearman": pytest.approx(spearmanr(guess, truth).statistic),
    }
    assert kind.metrics([(0.0, 1.0), (0.0, 3.0)])["spearman"] == 0.0 and not kind.higher_is_better


@pytest.mark.parametrize(
    "changed", [{"labels": ["a"]}, RATING | {"labels": ["a", "b"]}, RATING | {"rating_range": [1, 1]}, {}]
)
def test_a_goal_without_what_it_needs_is_refused(text_study: Studies, changed: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"labels|rating_range"):
        text_study(BASE | changed)


LABELS: list[tuple[list[str], str, int | None]] = [
    (["0", "1"], "1.0", 1),
    (["0.0", "1.0"], " 1", 1),
    (["0", "1"], "01", 1),
    (["-1", "1"], "-1.0", 0),
    (["false", "true"], "True", 1),
    (["TRUE", "FALSE"], "false", 1),
    (["1", "1.0"], "1.0", 1),
    (["1", "1.0"], "01", None),
    (["0", "1"], "1,000", None),
    (["0", "1"], "true", None),
    (["no", "yes"], "Yes", None),
    (["sch\u00f6n", "gut"], "scho\u0308n", 0),
    (["scho\u0308n", "gut"], "sch\u00f6n", 0),
    (["sch\u00f6n", "scho\u0308n", "\u00fcbel"], "u\u0308bel", None),
    (["sch\u00f6n", "scho\u0308n"], "scho\u0308n", 1),
]


@pytest.mark.parametrize(("labels", "cell", "index"), LABELS)
def test_a_label_is_read_in_another_spelling_where_only_one_can_be_meant(
    labels: list[str], cell: str, index: int | None
) -> None:
    goal = OneLabel(labels)
    assert goal.target(cell) == index
    assert goal.converted(cell) == (index is not None and cell.strip() not in labels)


def test_several_labels_may_be_numbers_in_a_list() -> None:
    goal = ManyLabels(["1", "2"])
    assert goal.target("[1, 2.0]") == [1.0, 1.0] and goal.target("[3]") is None and goal.converted("[2.0]")


@pytest.mark.parametrize("cell", ["[1, 0, 1]", "[0, 0, 0]", "[1.0, 1]"])
def test_a_list_with_0_or_1_for_each_label_is_not_read_as_names(encode: Callable[..., Encoded], cell: str) -> None:
    records, problems = encode(MANY | {"labels": ["0", "1", "2"]}, [("good", cell)])
    assert not records.usable.any() and "a list holds the names of a record's labels" in problems[0].reason
    assert encode(MANY | {"labels": ["0", "1", "2"]}, [("good", "[2, 0]")]).records["target"][0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("cell", "rating"), [("3,0", 0.75), ("-1,5", -0.375), ("1,000", None), ("1,5,0", None), ("0_1", None)]
)
def test_ratings_may_have_a_decimal_comma(cell: str, rating: float | None) -> None:
    assert Rating(-4, 4).target(cell) == rating


def test_texts_that_are_cut_are_counted_with_what_is_lost(encode: Callable[..., Encoded]) -> None:
    pairs = [("good " * 4, "bad " * 90, "no"), ("good", "bad", "yes"), ("word1 " * 40, "word2 " * 40, "yes")]
    (line,) = counted(encode(PAIR, pairs).problems)
    assert line.startswith("2 records have texts of more than 24 tokens, and are cut at their ends (")
    assert 50 < int(line.split("(")[1].split(" %")[0]) < 95
    assert counted(encode(PAIR, pairs[1:2]).problems) == []


def test_a_long_cell_of_zeros_is_read_in_time_linear_in_its_length() -> None:
    # looked at again from each of its zeros, it would take hours
    assert OneLabel(["0", "1"]).target("0" * 2_000_000 + "x") is None
    assert OneLabel(["0", "1"]).target("0" * 2_000_000) == 0
