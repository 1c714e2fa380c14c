"""Inputs that people of this trade bring, a small case of each kind: a refusal in words, a note, or the right rows."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from client.vault.records.snapshot import SplitRule
from client.vault.records.splits import Split
from shared.errors import DataError, FedVaultError, SettingsError
from shared.records.ragged import load
from shared.study.parsing import parse
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared
from simulations.results.summary import sizes_of_updates
from tests.support.mutated_models import REFUSED, REFUSED_TEXT, make_folder

Rows = list[dict[str, Any]]
IID = {"by": "iid", "sites": 2}
LABELS = {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 16}


def texts(count: int = 60) -> Rows:
    """Rows with texts of the tiny models' words."""
    words = [f"word{n % 15} word{n * 7 % 15} word{n * n % 15}" for n in range(count)]
    return [{"text": f"{text} word{n % 13}", "label": ("no", "yes")[n % 2]} for n, text in enumerate(words)]


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Prepared]:
    """Prepare a case as `fedvault-sim run` does before it trains."""

    def run(rows: Rows | str | None = None, *, name: str = "t.jsonl", family: str = "bert", **changes: Any) -> Prepared:
        base, source = tmp_path / "base", tmp_path / name
        if not base.exists():
            make_folder(family, base)
        if not isinstance(rows, str):
            rows = "\n".join(map(json.dumps, texts() if rows is None else rows)) + "\n"
        if not source.exists():
            source.write_text(rows)
        declared: dict[str, Any] = {
            "study": {"name": "case"},
            "model": {"source": str(base)},
            "task": LABELS,
            "privacy": {"epsilon": 8.0, "sampling_rate": 0.3},
            "federation": {"rounds": 2, "smallest_declared_size": 2},
            "simulation": {"data": {"source": name, "partition": changes.pop("partition", IID)}},
        }
        return prepare(parse(Scenario, declared | changes, where="case"), source, tmp_path / "out")

    return run


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("adapter beside the model", "adapter"),
        ("bitsandbytes", "quantization_config"),
        ("no tokenizer", "tokenizer"),
        ("a tensor is missing", "Expected weights for every part"),
    ],
)
def test_a_base_model_that_is_none_is_refused_by_name(
    case: Callable[..., Prepared], tmp_path: Path, kind: str, words: str
) -> None:
    make_folder("bert", tmp_path / "base")
    (REFUSED | REFUSED_TEXT)[kind](tmp_path / "base", random.Random(1))
    with pytest.raises(SettingsError) as refused:
        case()
        parse_and_build(tmp_path / "base")
    assert words in str(refused.value)


def parse_and_build(base: Path) -> None:
    """Load the weights, as the first arm does."""
    from shared.adapted_model.model import build
    from shared.study.declaration import Study

    build(parse(Study, {"study": {"name": "case"}, "model": {"source": str(base)}, "task": LABELS}, where="case"))


def test_large_numbers_name_the_sites_that_they_say(case: Callable[..., Prepared]) -> None:
    first = 2**53
    rows: Rows = [row | {"site": first + n // 10} for n, row in enumerate(texts())]
    found = case([*rows, {"text": "word1", "label": "no"}], partition={"by": "column", "column": "site"})
    assert [site.name for site in found.sites] == [str(first + n) for n in range(6)]
    assert [site.rows for site in found.sites] == [10] * 6 and "1 rows name no site" in " ".join(found.warnings)


def test_a_list_names_several_labels(case: Callable[..., Prepared], tmp_path: Path) -> None:
    lists = [["no"], ["no", "yes"], [], ["yes"]]
    table = pd.DataFrame([row | {"label": lists[n % 4]} for n, row in enumerate(texts())])
    table.to_parquet(tmp_path / "t.parquet")
    found = case(name="t.parquet", task=LABELS | {"problem": "multi-label"})
    assert not any(site.unusable for site in found.sites)


def test_a_cell_that_is_an_object_is_told(case: Callable[..., Prepared]) -> None:
    found = case([row | {"text": {"body": row["text"]}} for row in texts()])
    assert any("60 of 60 cells are objects, not texts" in warning for warning in found.warnings)


def test_a_list_in_place_of_a_text_is_told(case: Callable[..., Prepared]) -> None:
    found = case([row | {"text": row["text"].split()} for row in texts()])
    assert any("60 of 60 cells are lists, not texts" in warning for warning in found.warnings)


def test_lists_with_0_or_1_for_each_label_are_refused_with_the_reason(case: Callable[..., Prepared]) -> None:
    rows = [row | {"label": [n % 2, 1, 1]} for n, row in enumerate(texts())]
    with pytest.raises(DataError) as refused:
        case(rows, task=LABELS | {"problem": "multi-label", "labels": ["0", "1", "2"]})
    assert "a list holds the names of a record's labels, not 0 or 1" in str(refused.value.hint)


def test_bytes_in_place_of_texts_are_refused(case: Callable[..., Prepared], tmp_path: Path) -> None:
    table = pd.DataFrame([row | {"text": row["text"].encode()} for row in texts()])
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"Expected texts in column 'text' of .*t\.parquet, got bytes\."):
        case(name="t.parquet")


def test_a_broken_line_is_named(case: Callable[..., Prepared]) -> None:
    lines = [json.dumps(row) for row in texts()]
    lines[50] = lines[50][:-8]
    with pytest.raises(FedVaultError) as refused:
        case("\n".join(lines) + "\n")
    assert "line 51" in str(refused.value.hint)


def test_a_text_with_two_labels_is_on_one_side(case: Callable[..., Prepared]) -> None:
    found = case([row | {"label": label} for row in texts() for label in ("no", "yes")])
    for site in found.sites:
        sides = [load(path(site)) for path in (found.train_path, found.holdout_path)]
        trained, held_out = ({part["ids"][i].tobytes() for i in range(len(part))} for part in sides)
        assert trained and held_out and not trained & held_out


def test_greys_of_12_bits_are_not_nearly_black(case: Callable[..., Prepared], tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for n in range(40):
        Image.fromarray(dice.integers(0, 4096, (16, 16)).astype(np.uint16)).save(tmp_path / f"{n}.png")
    rows: Rows = [{"image": f"{n}.png", "label": ("no", "yes")[n % 2]} for n in range(40)]
    found = case(rows, family="vit", task={"kind": "image-classification", "labels": ["no", "yes"]})
    images = load(found.train_path(found.sites[0]))
    pixels = np.concatenate([images[name].values.astype(float) for name in images.fields if name != "target"])
    assert np.ptp(pixels) > 200 and not any(site.unusable for site in found.sites)


def test_a_length_beyond_the_positions_is_refused_when_the_study_is_read(case: Callable[..., Prepared]) -> None:
    with pytest.raises(SettingsError, match=r"task\.max_length of at most 40 for this base model, got 256"):
        case(task=LABELS | {"max_length": 256})


def test_a_head_alone_on_a_model_that_lora_does_not_know_works(case: Callable[..., Prepared], tmp_path: Path) -> None:
    case(family="modernbert", adapter={"method": "head-only"})
    declared = {"study": {"name": "case"}, "model": {"source": str(tmp_path / "base")}, "task": LABELS}
    from shared.study.declaration import Study

    study = parse(Study, declared | {"adapter": {"method": "head-only"}}, where="case")
    assert sizes_of_updates(study).full_model_up > 0


def test_a_document_is_on_one_side(case: Callable[..., Prepared]) -> None:
    rows: Rows = [row | {"document": f"d{n % 12}"} for n, row in enumerate(texts())]
    data = {"source": "t.jsonl", "partition": IID, "split_by": "document", "holdout": 0.4}
    found = case(rows, simulation={"data": data})
    table = pd.DataFrame(rows)
    splits = SplitRule(b"k" * 16, 0.4, split_by="document").decided(None, table, table["text"].tolist())  # type: ignore[arg-type]
    by_document = table.assign(split=splits).groupby("document")["split"].nunique()
    assert (by_document == 1).all() and set(splits) == {Split.TRAIN, Split.HOLDOUT}
    assert all(site.train and site.holdout for site in found.sites)
