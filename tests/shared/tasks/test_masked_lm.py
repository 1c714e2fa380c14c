"""Masked language modelling: masks follow from a record alone; the head is the model's own, or its embeddings."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from server.export.adapter import export
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.tasks.masked_lm import LARGEST_LOSS, TiedHead, masked_places
from shared.tasks.registry import task_kind

TASK = {"kind": "masked-lm", "max_length": 24}
TEXTS = ["ada lives in paris .", "good bad word1 word2 word3 word4 word5 word6 word7 word8 word9"]
Studies = Callable[..., Study]


@pytest.fixture
def encode(text_study: Studies) -> Callable[..., Encoded]:
    def run(texts: list[str], family: str = "bert", **changed: Any) -> Encoded:
        study = text_study(TASK | changed, family)
        return task_kind(study.task).encode({"text": texts}, load_tokenizer(find(study.model)))

    return run


def test_masks_depend_on_the_record_alone(encode: Callable[..., Encoded]) -> None:
    alone, together = encode(TEXTS[1:]).records, encode([*TEXTS, "bad"]).records
    assert alone["where"][0].tolist() == together["where"][1].tolist()
    assert alone["ids"][0].tolist() == together["ids"][1].tolist()
    assert masked_places([2, 9, 10, 11, 3], {2, 3}, fraction=0.5) == [2, 3]  # as it was when it was written


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_masked_tokens_are_real_ones_and_are_kept_as_targets(encode: Callable[..., Encoded], family: str) -> None:
    records = encode(TEXTS, family, masked=0.4).records
    for row in range(2):
        ids, where, target = (records[name][row] for name in ("ids", "where", "target"))
        assert len(set(ids[where])) == 1 and 0 < len(where) == len(target) and ids[where[0]] not in target
        assert 0 not in where and len(ids) - 1 not in where


def test_about_the_stated_share_is_masked_and_at_least_one() -> None:
    counts = [len(masked_places([1, *range(5, 5 + n), 2], {1, 2}, fraction=0.15)) for n in (1, 3, 40)]
    assert counts == [1, 1, 6] and masked_places([1, 2], {1, 2}, fraction=0.15) == []
    places = [p for n in range(2000) for p in masked_places([n, *range(5, 25)], {n}, fraction=0.15)]
    seen = np.bincount(places, minlength=21)[1:]  # 20 places, each 300 times on average, sigma 16: 5 sigma
    assert seen.min() > 220 and seen.max() < 380


def test_a_text_with_nothing_to_mask_is_named_and_a_long_one_cut(encode: Callable[..., Encoded]) -> None:
    records, problems = encode(["ada", "", "ada " * 100_000])
    assert records.usable.tolist() == [True, False, True] and len(records["ids"][2]) == 24
    assert sorted((p.row, p.reason[:8]) for p in problems) == [(1, "its text"), (2, "a text o")]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_losses_are_those_of_transformers_own_model(
    text_study: Studies, encode: Callable[..., Encoded], family: str
) -> None:
    study, records = text_study(TASK, family), encode(TEXTS, family, masked=0.4).records
    model, plain = build(study), AutoModelForMaskedLM.from_pretrained(study.model.source).eval()
    found = model.losses(collate(records, [0, 1], model.kind.fills, torch.device("cpu")))
    for row in range(2):
        ids, where, target = (torch.from_numpy(records[name][row]).long() for name in ("ids", "where", "target"))
        logits = plain(input_ids=ids[None]).logits[0, where]
        torch.testing.assert_close(found[row], torch.nn.functional.cross_entropy(logits, target))


def test_a_checkpoint_without_a_language_head_gets_its_own_embeddings_and_says_so(
    text_study: Studies, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model, again = build(text_study(TASK, "headless")), build(text_study(TASK, "headless"))
    assert "has no language head" in caplog.text and isinstance(model.head, TiedHead)
    batch = {"ids": torch.tensor([[6, 4, 7]]), "mask": torch.ones(1, 3, dtype=torch.long), "where": torch.tensor([[1]])}
    assert model.outputs(batch).shape == (1, 1, 69)
    assert torch.equal(model.outputs(batch), again.outputs(batch)) and not model.head.weight.requires_grad
    assert not isinstance(build(text_study(TASK)).head, TiedHead)


def test_perplexity_is_over_all_masked_tokens_and_finite(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    kind = task_kind(text_study(TASK).task)
    assert kind.metrics([(2.0, 1, 1), (4.0, 0, 2)]) == {
        "pseudo_perplexity": pytest.approx(math.exp(2.0)),
        "masked_accuracy": pytest.approx(1 / 3),
    }
    assert kind.metrics([])["pseudo_perplexity"] == kind.metrics([(1e9, 0, 1)])["pseudo_perplexity"]
    assert math.isfinite(kind.metrics([])["pseudo_perplexity"]) and LARGEST_LOSS < 100
    model, records = build(text_study(TASK)), encode([TEXTS[0]]).records
    judged = evaluate(model, records, tokens=64, with_loss=True)
    assert kind.metrics(judged.evidence)["pseudo_perplexity"] == pytest.approx(math.exp(judged.loss), rel=1e-5)


def test_the_constant_knows_how_often_tokens_come(text_study: Studies, encode: Callable[..., Encoded]) -> None:
    kind, records = task_kind(text_study(TASK).task), encode(["ada"] * 3 + ["paris"]).records
    surprises = [one[0] for one in kind.constant([records], records) or ()]
    assert surprises == pytest.approx([math.log(7 / 4)] * 3 + [math.log(7 / 2)])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_an_export_holds_no_head_and_fills_masks_in_plain_transformers(text_study: Studies, tmp_path: Path) -> None:
    study = text_study(TASK)
    model = build(study)
    model.load(np.random.default_rng(1).standard_normal(model.layout.length).astype(np.float32))
    export(study, model.packed(), tmp_path)
    assert not (tmp_path / "head.safetensors").exists()
    plain = AutoModelForMaskedLM.from_pretrained(study.model.source)
    PeftModel.from_pretrained(plain.base_model, tmp_path)
    ids = torch.tensor([[6, 4, 7]])
    expected = model.outputs({"ids": ids, "mask": torch.ones_like(ids), "where": torch.tensor([[1]])})
    torch.testing.assert_close(plain.eval()(input_ids=ids).logits[:, 1:2], expected)


def test_what_does_not_suit_is_refused(text_study: Studies, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="masked"):
        text_study(TASK | {"masked": 1.0})
    with pytest.raises(SettingsError, match="something to train"):
        build(text_study(TASK, adapter={"method": "head-only"}))
    config = DistilBertConfig(vocab_size=9, dim=8, n_layers=1, n_heads=1, hidden_dim=8)
    DistilBertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="one language head, got model type 'distilbert'"):
        build(text_study(TASK, model={"source": str(tmp_path)}))
