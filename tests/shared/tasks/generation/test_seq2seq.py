"""Sequence to sequence: translations and summaries of any length, each learned by itself and judged by known scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build
from shared.errors import SettingsError
from shared.protocol.messages import Status
from shared.records.batches import collate
from shared.records.ragged import Encoded, text
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from shared.tasks.task_table import counted
from shared.tasks.text_overlap import chrf, rouge_l

Studies = Callable[..., Study]
TASK = {"kind": "seq2seq", "max_target_length": 8}
ROWS = {"source": ["word1 word2 good", "word3"], "target": ["eins zwei", "zwei"]}
HYPOTHESES = ["The cat sat on the mat.", "Ein Haus", "x", "Das Kleine Haus am See"]
REFERENCES = ["A cat is on the mat today.", "Das Haus", "ganz anders", "das kleine Haus am weiten See"]
CHRF, ROUGE = 37.89539719653992, [0.6153846153846153, 0.5, 0.0, 0.9090909090909091]


def encoded(study: Study, rows: dict[str, list[str]]) -> Encoded:
    return task_kind(study.task).encode(rows, AutoTokenizer.from_pretrained(study.model.source))


def test_metrics_are_declared_and_others_are_refused(language_study: Studies) -> None:
    assert task_kind(language_study("t5", TASK | {"metric": "chrf"}).task).metric == "chrf"
    for wrong, where in (({"metric": "bleu"}, "metric"), ({"max_target_length": 2}, "max_target_length")):
        with pytest.raises(SettingsError, match=f"task.{where}"):
            language_study("t5", TASK | wrong)
    with pytest.raises(SettingsError, match="suits the task"):
        build(language_study("gpt2", TASK))


def test_source_and_target_become_tokens_and_bad_rows_are_named(language_study: Studies, randomised: Any) -> None:
    study = language_study("t5", TASK | {"prefix": "good "})
    sources = ["word1 word2", "", "word1", "word1 " * 100_000]
    found = encoded(study, {"source": sources, "target": ["eins", "eins", " ", "zwei " * 40]})
    words = AutoTokenizer.from_pretrained(study.model.source).convert_ids_to_tokens
    assert words(found.records["ids"][0].tolist()) == ["good", "word1", "word2"]
    assert words(found.records["target"][0].tolist()) == ["eins", "</s>"]
    assert words(found.records["target"][3].tolist()) == ["zwei"] * 7 + ["</s>"]
    assert text(found.records["reference"], 0) == "eins"
    assert found.records.usable.tolist() == [True, False, False, True]
    assert [problem.row for problem in sorted(found.problems)] == [1, 2, 3, 3]
    assert "a text of 600005 characters was cut to its first 2400" in [problem.reason for problem in found.problems]
    assert (
        "1 records have targets of more than 8 tokens, and are cut at their ends (80 % of their characters)."
        in counted(found.problems)
    )
    model = randomised(study)
    losses = model.losses(collate(found.records, range(4), model.kind.fills, torch.device("cpu")))
    assert losses[0] > 0 and losses[3] > 0 and not losses[1:3].any()


@pytest.mark.parametrize("family", ["t5", "bart", "marian"])
@pytest.mark.parametrize("method", ["ffa-lora", "lora"])
def test_every_family_is_exact_and_uncoupled(
    language_study: Studies, worst_error: Callable[[Study], float], family: str, method: str
) -> None:
    assert worst_error(language_study(family, TASK, method=method, layers="last:1")) < 1e-5


@pytest.mark.parametrize(("family", "method"), [("t5", "dora"), ("t5", "ia3"), ("bart", "dora")])
def test_adapters_that_are_not_linear_are_exact_too(
    language_study: Studies, worst_error: Callable[[Study], float], family: str, method: str
) -> None:
    assert worst_error(language_study(family, TASK, method=method)) < 1e-5


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_a_private_round_trains(language_study: Studies, private_round: Any, family: str) -> None:
    study = language_study(family, TASK, layers="last:1")
    reply = private_round(study, encoded(study, {name: 30 * cells for name, cells in ROWS.items()}))
    assert reply.status is Status.TRAINED and np.abs(reply.update).max() > 0


@pytest.mark.parametrize("family", ["t5", "bart", "marian"])
def test_loss_is_that_of_the_plain_model_record_by_record(language_study: Studies, family: str) -> None:
    study = language_study(family, TASK)
    model, found = build(study), encoded(study, ROWS)
    batch = collate(found.records, range(2), model.kind.fills, torch.device("cpu"))
    plain = AutoModelForSeq2SeqLM.from_pretrained(study.model.source).eval()
    for row in range(2):
        ids, labels = (torch.tensor(found.records[name][row].astype(int))[None] for name in ("ids", "target"))
        loss = plain(input_ids=ids, labels=labels).loss.item()
        assert model.losses(batch)[row].item() == pytest.approx(loss, rel=1e-4)


def test_what_the_model_writes_is_what_the_plain_one_generates(language_study: Studies) -> None:
    study = language_study("t5", TASK)
    model, found = build(study), encoded(study, ROWS)
    judged = evaluate(model, found.records, tokens=512)
    plain, tokenizer = (auto.from_pretrained(study.model.source) for auto in (AutoModelForSeq2SeqLM, AutoTokenizer))
    for row, (said, true, loss) in enumerate(judged.evidence):
        ids = torch.tensor(found.records["ids"][row].astype(int))[None]
        written = plain.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
        assert said == tokenizer.decode(written[0], skip_special_tokens=True)
        assert true == ROWS["target"][row] and loss > 0
    assert set(model.kind.metrics(judged.evidence)) == {"rouge_l", "loss"}


def test_scores_are_those_of_the_usual_programs() -> None:
    """Figures of sacrebleu 2.6.0 (CHRF, default) and rouge-score 0.1.2 (rougeL, no stemming)."""
    assert chrf(HYPOTHESES, REFERENCES) == pytest.approx(CHRF, abs=1e-9)
    assert [rouge_l(*pair) for pair in zip(HYPOTHESES, REFERENCES, strict=True)] == pytest.approx(ROUGE)
    assert chrf([], []) == chrf(["a"], ["b"]) == rouge_l("", "a") == 0.0
    assert chrf(["abc def"], ["abc def"]) == pytest.approx(100) and rouge_l("A b", "a, b!") == 1.0


def test_metrics_of_nothing_are_the_worst_and_finite(language_study: Studies) -> None:
    kind = task_kind(language_study("t5", TASK).task)
    assert kind.metrics([]) == {"rouge_l": 0.0, "loss": 20.0}
    assert kind.metrics([("a", "a", float("nan"))]) == {"rouge_l": 1.0, "loss": 20.0}
