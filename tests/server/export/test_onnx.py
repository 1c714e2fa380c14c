"""A model as ONNX: it answers as the model does, or there is no file."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.export import onnx as onnx_export
from server.export.adapter import export
from server.export.model_card import write_card
from server.export.onnx import MODEL_FILE, write_onnx
from server.rounds.checkpoints import State
from shared.adapted_model.finished import load_finished
from shared.adapted_model.model import layout_of
from shared.errors import RunError, SettingsError
from shared.records.batches import collate
from shared.study.declaration import Study
from tests.support.paths import ROOT

TASKS: dict[str, dict[str, Any]] = {
    "one label": {},
    "a pair": {"pair": True},
    "a rating": {"problem": "rating", "labels": [], "rating_range": [1, 5]},
    "labels of tokens": {"kind": "token-classification", "labels": ["O", "B"]},
}


def exported(study: Study, folder: Path) -> Path:
    adapter = 0.5 * np.random.default_rng(0).standard_normal(layout_of(study).length).astype(np.float32)
    export(study, adapter, folder)
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_a_graph_answers_as_the_model_does(make_study: Callable[..., Study], tmp_path: Path, name: str) -> None:
    folder = exported(make_study(task=TASKS[name]), tmp_path / "adapter")
    assert write_onnx(folder, tmp_path / "onnx") <= 1e-4
    assert {MODEL_FILE, "fedvault.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "onnx").iterdir()}


@pytest.mark.parametrize("held", ["bfloat16", "4bit"])
def test_a_base_model_in_short_numbers_is_written_with_what_they_stand_for(
    make_study: Callable[..., Study], tmp_path: Path, held: str
) -> None:
    folder = exported(make_study(model={"base_weights": held}), tmp_path / "adapter")
    assert write_onnx(folder, tmp_path / "onnx") <= 1e-4
    trained, written = load_finished(folder).model, onnx_export._in_float32(load_finished(folder).model)
    published = load_finished(exported(make_study(), tmp_path / "published")).model
    records = load_finished(folder).encode({"text": [f"good word{i}" for i in range(40)]})
    batch = collate(records, range(40), trained.kind.fills, torch.device("cpu"))
    with torch.no_grad():
        outputs = trained(batch)
        off, off_published = ((outputs - model(batch)).abs().mean() for model in (written, published))
    assert 0 < off < 0.02 * outputs.abs().mean(), "the rounding of each layer's outputs"
    assert held == "bfloat16" or off < off_published / 3


def test_onnx_runtime_and_a_tokenizer_are_all_it_needs(
    make_study: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = exported(make_study(), tmp_path / "adapter")
    write_onnx(folder, tmp_path / "onnx")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec((ROOT / "tests" / "snippets" / "onnx_runtime.py").read_text(), {})  # noqa: S102 - as the guide shows it
    answers = load_finished(folder).classify(["A good day.", "A bad film, far too long."])
    assert capsys.readouterr().out == f"{answers}\n"


def test_the_card_says_how_the_graph_is_run_and_nothing_of_peft(
    make_study: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, task in TASKS.items():
        study = make_study(task=task)
        folder = exported(study, tmp_path / name / "adapter")
        write_card(folder, "run", study, State(study.sha256, "run", 0, np.zeros(0, np.float32)), names={})
        write_onnx(folder, tmp_path / name / "onnx")
        card = (tmp_path / name / "onnx" / "README.md").read_text()
        assert "library_name: onnx" in card and "## Privacy" in card and "from_pretrained(AutoModel" not in card
        assert "| `input_ids` | tensor(int64) | records x tokens | the tokenizer beside it |" in card
        assert ("| `token_type_ids` |" in card) == (name == "a pair")
        for code in re.findall("```python\n(.*?)```", card, re.S):
            capsys.readouterr()
            monkeypatch.chdir(tmp_path / name)
            exec(code, {})  # noqa: S102 - as the card shows it
            rows = {"text": ["A good day.", "A bad film, far too long."]}
            rows |= {"text_pair": ["What a day!", "What a film!"]} if task.get("pair") else {}
            answers, printed = load_finished(folder).predict(rows), ast.literal_eval(capsys.readouterr().out)
            assert printed == (pytest.approx(answers, abs=1e-3) if name == "a rating" else answers), name
        assert ("```python" in card) == (study.task.kind == "sequence-classification")
        if name == "one label":
            assert (ROOT / "tests" / "snippets" / "onnx_runtime.py").read_text() in card


def test_a_graph_that_computes_something_else_is_not_written(
    make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(make_study(), tmp_path / "adapter")

    def without_adapter(model: Any) -> Any:
        model.load(np.zeros(model.layout.length, np.float32))
        return model

    monkeypatch.setattr(onnx_export, "_merged", without_adapter)
    with pytest.raises(RunError, match=r"differ by at most 0.0001, got .*nothing was written"):
        write_onnx(folder, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_task_that_takes_many_passes_is_refused(make_study: Callable[..., Study], tmp_path: Path) -> None:
    declared = make_study().model_dump(mode="json") | {"task": {"kind": "question-answering", "max_length": 24}}
    folder = exported(Study.model_validate(declared), tmp_path / "adapter")
    with pytest.raises(SettingsError, match=r"Expected a task of kind sequence-classification.*question-answering"):
        write_onnx(folder, tmp_path / "onnx")
