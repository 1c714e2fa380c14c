"""What speaks for an answer about a text: parts that add up, beside independent computations."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.cli import main as node_main
from server.export.adapter import export
from shared.adapted_model.finished import FinishedModel, load_finished
from shared.adapted_model.model import build, layout_of
from shared.errors import SettingsError
from shared.explanations.command import named_columns, require_captum, rows_of
from shared.explanations.explain import explain
from shared.explanations.page import FIGURES, PAGE, as_json, explanation_page
from shared.explanations.words import TextAttribution
from shared.records.batches import collate
from shared.study.declaration import Study

Make = Callable[..., Study]
ROWS = {"text": ["good word1 word2 bad word3", "fine"]}


@pytest.fixture
def finished(make_study: Make) -> Callable[..., FinishedModel]:
    """A model with an adapter and a head that were drawn, not trained."""

    def load(**sections: Any) -> FinishedModel:
        model = build(make_study(**sections))
        drawn = np.random.default_rng(3).standard_normal(model.layout.length)
        model.load((0.5 * drawn).astype(np.float32))
        return FinishedModel(make_study(**sections), model)

    return load


TASKS: dict[str, dict[str, Any]] = {
    "one label": {},
    "three labels": {"labels": ["a", "b", "c"]},
    "many labels": {"problem": "multi-label"},
    "a rating": {"problem": "rating", "labels": [], "rating_range": [1, 5]},
}


@pytest.mark.parametrize("name", TASKS)
def test_words_and_marks_add_up_to_the_score_less_that_of_a_blank_text(
    finished: Callable[..., FinishedModel], name: str
) -> None:
    for one in explain(finished(task=TASKS[name]), ROWS):
        parts = one.attribution
        assert isinstance(parts, TextAttribution)
        weight = sum(abs(piece.weight) for piece in parts.texts[0])
        assert weight > 0.05, "there is something to explain"
        assert abs(parts.gap) < 0.01 * weight
        assert [piece.text.strip() for piece in parts.texts[0]] == ROWS["text"][one.row].split()


def test_the_score_is_the_log_odds_of_the_answer(finished: Callable[..., FinishedModel]) -> None:
    model = finished()
    one = explain(model, ROWS)[0]
    batch = collate(model.encode(ROWS), [0], model.model.kind.fills, torch.device("cpu"))
    with torch.no_grad():
        p = torch.softmax(model.model(batch)[0], dim=0)
    index = model.model.kind.labels.index(one.answer)
    assert one.attribution.score == pytest.approx(float(torch.log(p[index] / (1 - p[index]))), abs=1e-4)


def test_integrated_gradients_are_those_of_a_sum_by_hand(finished: Callable[..., FinishedModel]) -> None:
    """An oracle without captum: gradients at 200 points of the straight line between both embeddings."""
    model = finished()
    inner, kind = model.model, model.model.kind
    batch = collate(model.encode(ROWS), [0], kind.fills, torch.device("cpu"))
    answer = int(inner(batch)[0].argmax())
    words: Any = inner.base.get_input_embeddings()
    ids = batch["ids"].long()
    blank = torch.where((ids == 2) | (ids == 3) | (batch["mask"] == 0), ids, torch.zeros_like(ids))
    with torch.no_grad():
        end, start = words(ids), words(blank)
    total = torch.zeros_like(end)
    for step in range(200):
        point = (start + (step + 0.5) / 200 * (end - start)).requires_grad_()
        hook = words.register_forward_hook(lambda *_, point=point: point)
        logits = inner(batch)[0]
        hook.remove()
        score = logits[answer] - logits[1 - answer]
        total += torch.autograd.grad(score, point)[0] / 200
    by_hand = ((end - start) * total).sum(-1)[0]
    parts = explain(model, ROWS)[0].attribution
    assert isinstance(parts, TextAttribution)
    np.testing.assert_allclose([p.weight for p in parts.texts[0]], by_hand[1:6].numpy(), rtol=0.02, atol=2e-3)


def test_a_pair_is_explained_by_both_texts_and_what_is_cut_off_weighs_nothing(
    finished: Callable[..., FinishedModel],
) -> None:
    model = finished(task={"pair": True, "max_length": 8})
    rows = {"text": ["good word1"], "text_pair": ["bad word2 word3 word4 word5 word6"]}
    parts = explain(model, rows)[0].attribution
    assert isinstance(parts, TextAttribution)
    first, second = parts.texts
    assert [piece.text.strip() for piece in second] == rows["text_pair"][0].split()
    assert second[0].weight != 0 and second[-1].weight == 0 and first[0].weight != 0
    assert abs(parts.gap) < 0.02 * abs(parts.score - parts.blank_score) + 1e-3


def test_a_task_without_a_single_score_is_refused(make_study: Make, tmp_path: Path) -> None:
    study = make_study(task={"kind": "token-classification", "labels": ["O", "B"]})
    with pytest.raises(SettingsError, match=r"Expected a task of kind sequence-classification.*token-classification"):
        explain(FinishedModel(study, build(study)), {"tokens": ["a b"]})


def test_a_page_shows_rows_and_runs_nothing_that_they_hold(finished: Callable[..., FinishedModel]) -> None:
    model = finished()
    explanations = explain(model, {"text": ["<script>alert(1)</script> good"]})
    page = explanation_page(explanations, "Why <b>this</b>")
    assert "<script>alert" not in page and "<b>this" not in page and "&lt;script&gt;" in page
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    (figures,) = as_json(explanations)
    assert figures["texts"][0][-1]["text"] == "good" and figures["row"] == 1
    assert f"{figures['score']:+.2f}" in page


def test_rows_need_no_answers_and_columns_have_other_names(
    finished: Callable[..., FinishedModel], tmp_path: Path
) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("note,other\ngood,1\nbad,2\nfine,3\n")
    assert rows_of(finished(), table, named_columns(["text=note"]), 2) == {"text": ["good", "bad"]}
    with pytest.raises(SettingsError, match="Expected a column of the task"):
        rows_of(finished(), table, {"txt": "note"}, 2)
    with pytest.raises(SettingsError, match="as in text=body, got 'note'"):
        named_columns(["note"])


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(SettingsError, match="Expected captum"):
        require_captum()


def test_a_node_explains_its_own_records_and_its_ledger_stays_as_it_is(
    make_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study()
    adapter = np.random.default_rng(0).standard_normal(layout_of(study).length).astype(np.float32)
    export(study, adapter, tmp_path / "adapter")
    assert load_finished(tmp_path / "adapter").predict(ROWS)
    (tmp_path / "ward.csv").write_text("note,label\ngood word1,yes\nbad,no\n")
    policy = 'source = "ward.csv"\ncolumns = { text = "note" }\nepsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\n'
    (tmp_path / "node.toml").write_text(f'[datasets.ward]\n{policy}models = ["{"a" * 64}"]\n')
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*.sqlite*"))
    monkeypatch.setattr(sys, "argv", ["fedvault-node", "explain", "adapter", "--rows", "1"])
    with pytest.raises(SystemExit) as ended:
        node_main()
    assert not ended.value.code, capsys.readouterr().err
    assert "keep it where they may lie" in capsys.readouterr().err
    assert json.loads((tmp_path / "explained-ward" / FIGURES).read_text())[0]["texts"][0][0]["text"] == "good "
    assert (tmp_path / "explained-ward" / PAGE).exists() and set(tmp_path.rglob("*.sqlite*")) == before
