"""Causal language modelling: what is learned of a row, and that each record is learned by itself."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import AdaptedModel, build
from shared.errors import SettingsError
from shared.protocol.messages import Status
from shared.records.batches import collate
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.tasks.registry import task_kind
from tests.support.model_families import make_folder

Studies = Callable[..., Study]
TEXT = {"kind": "causal-lm"}
PAIRS = {"kind": "causal-lm", "form": "prompt-response"}
CHAT = {"kind": "causal-lm", "form": "chat"}
RESPONSES = {"prompt": ["word1 word2", "word3"], "response": ["yes good", "no"]}


def encoded(study: Study, rows: dict[str, list[str]]) -> Encoded:
    kind = task_kind(study.task)
    return kind.encode(rows, AutoTokenizer.from_pretrained(study.model.source))


def words(study: Study, encoded: Encoded, row: int) -> tuple[str, str]:
    """What is given and what is learned of a row, in words."""
    tokenizer = AutoTokenizer.from_pretrained(study.model.source)
    ids, start = encoded.records["ids"][row], int(encoded.records["start"][row][0])
    return tuple(" ".join(tokenizer.convert_ids_to_tokens(part.tolist())) for part in (ids[:start], ids[start:]))


def test_forms_are_declared_and_others_are_refused(language_study: Studies) -> None:
    assert language_study("gpt2", TEXT).task.form == "text"
    with pytest.raises(SettingsError, match=r"task\.form"):
        language_study("gpt2", TEXT | {"form": "poem"})
    with pytest.raises(SettingsError, match="something to train"):
        build(language_study("gpt2", TEXT, method="head-only"))


def test_a_text_is_learned_with_its_end_and_a_cut_one_without(language_study: Studies) -> None:
    study = language_study("gpt2", TEXT | {"max_length": 8})
    found = encoded(study, {"text": ["word1 word2", "word1 " * 30]})
    assert words(study, found, 0) == ("", "word1 word2 </s>")
    assert words(study, found, 1) == ("", " ".join(["word1"] * 8))


def test_only_the_response_is_learned(language_study: Studies) -> None:
    study = language_study("gpt2", PAIRS)
    assert words(study, encoded(study, RESPONSES), 0) == ("word1 word2 \n", "yes good </s>")


def test_a_chat_is_written_in_the_models_own_template_up_to_its_end(language_study: Studies) -> None:
    study = language_study("llama", CHAT)
    found = words(study, encoded(study, RESPONSES), 0)
    assert found == ("<turn> user \n word1 word2 </s> \n <turn> assistant \n", "yes good </s>")


def test_a_chat_without_a_template_is_refused(language_study: Studies) -> None:
    study = language_study("llama", CHAT)
    tokenizer = AutoTokenizer.from_pretrained(study.model.source)
    tokenizer.chat_template = None
    with pytest.raises(SettingsError, match="chat template"):
        task_kind(study.task).encode(RESPONSES, tokenizer)
    tokenizer.chat_template = "{{ messages | length }} {{ messages[0]['content'] }}"
    with pytest.raises(SettingsError, match="only adds the answer"):
        task_kind(study.task).encode(RESPONSES, tokenizer)


def test_a_tokenizer_without_an_end_is_refused(language_study: Studies) -> None:
    study = language_study("llama", PAIRS)
    tokenizer = AutoTokenizer.from_pretrained(study.model.source)
    tokenizer.eos_token = None
    with pytest.raises(SettingsError, match="end token"):
        task_kind(study.task).encode(RESPONSES, tokenizer)


def test_bad_rows_are_named_and_contribute_nothing(language_study: Studies, randomised: Any) -> None:
    study = language_study("gpt2", PAIRS)
    found = encoded(
        study,
        {
            "prompt": ["word1", "", "word1 " * 40, "word1 " * 100_000, "word2"],
            "response": ["yes", "yes", "yes", "no", " "],
        },
    )
    assert found.records.usable.tolist() == [True, False, False, False, False]
    said = dict(found.problems)
    assert said[1] == "its prompt is empty" and said[4] == "its response is empty"
    assert said[2] == "its prompt alone fills task.max_length=24"
    assert (3, "a text of 600000 characters was cut to its first 2400") in found.problems
    model = randomised(study)
    losses = model.losses(collate(found.records, range(5), model.kind.fills, torch.device("cpu")))
    assert losses[0] > 0 and not losses[1:].any()


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
@pytest.mark.parametrize("method", ["ffa-lora", "lora"])
def test_every_family_is_exact_and_uncoupled(
    language_study: Studies, worst_error: Callable[[Study], float], family: str, method: str
) -> None:
    assert worst_error(language_study(family, PAIRS, method=method)) < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen"])
def test_a_decoder_that_is_cut_computes_what_the_whole_one_does(
    language_study: Studies, randomised: Any, worst_error: Callable[[Study], float], family: str
) -> None:
    study = language_study(family, PAIRS, layers="last:1")
    model = randomised(study)
    assert model.has_frozen_layers
    records = model.kind.synthetic(model.config, [8, 5, 3], variant=0)
    batch = collate(records, range(3), model.kind.fills, torch.device("cpu"))
    torch.testing.assert_close(model.outputs(batch | {"states": model.frozen_states(batch)}), model(batch))
    assert worst_error(study) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["dora", "ia3"])
def test_adapters_that_are_not_linear_are_exact_too(
    language_study: Studies, worst_error: Callable[[Study], float], family: str, method: str
) -> None:
    assert worst_error(language_study(family, TEXT, method=method, layers="last:1")) < 1e-5


@pytest.mark.parametrize("form", [TEXT, CHAT])
def test_a_private_round_trains(language_study: Studies, private_round: Any, form: dict[str, str]) -> None:
    study = language_study("llama", form, layers="last:1")
    rows = {"text": ["word1 word2 yes"] * 60} if form is TEXT else {name: 30 * RESPONSES[name] for name in RESPONSES}
    reply = private_round(study, encoded(study, rows))
    assert reply.status is Status.TRAINED and np.abs(reply.update).max() > 0


def test_perplexity_is_that_of_the_plain_model_token_by_token(language_study: Studies) -> None:
    study = language_study("gpt2", PAIRS)
    model, found = build(study), encoded(study, RESPONSES)
    judged = evaluate(model, found.records, tokens=512)
    plain, total, count = AutoModelForCausalLM.from_pretrained(study.model.source).eval(), 0.0, 0
    for row in range(2):
        ids = torch.tensor(found.records["ids"][row].astype(int))
        scores = plain(input_ids=ids[None]).logits[0].detach().double().log_softmax(-1)
        for place in range(int(found.records["start"][row][0]), len(ids)):
            total, count = total - float(scores[place - 1, ids[place]]), count + 1
    metrics = model.kind.metrics(judged.evidence)
    assert count == 5 and metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert 0 <= metrics["token_accuracy"] <= 1


def test_metrics_are_finite_whatever_comes() -> None:
    from shared.study import tasks as declarations

    kind = task_kind(declarations.CausalLanguageModel(kind="causal-lm"))
    assert kind.metrics([])["perplexity"] == kind.metrics([(math.nan, 0, 3)])["perplexity"] == math.exp(20)
    assert kind.metrics([(2 * math.log(3), 1, 2), (0.0, 0, 0)]) == {
        "perplexity": pytest.approx(3),
        "token_accuracy": 0.5,
    }


def test_a_records_loss_is_the_mean_over_its_own_tokens(
    language_study: Studies, randomised: Callable[[Study], AdaptedModel]
) -> None:
    study = language_study("llama", PAIRS)
    model, found = randomised(study), encoded(study, RESPONSES)
    batch = collate(found.records, [0, 1], model.kind.fills, torch.device("cpu"))
    scores, ids = model(batch)[1], batch["ids"][1]
    assert model.losses(batch)[1].item() == pytest.approx(F.cross_entropy(scores[1:3], ids[2:4]).item(), rel=1e-5)


def test_the_simulation_of_a_federation_runs(language_model: Callable[[str], Path], tmp_path: Path) -> None:
    import pandas as pd

    from server.export.adapter import load_finished
    from simulations.experiment.scenario import Scenario
    from simulations.progress import SilentProgress
    from simulations.run import Run

    rows = [(f"word{i % 40} word{i % 7}", "yes" if i % 2 else "no", "ab"[i % 2]) for i in range(80)]
    pd.DataFrame(rows, columns=["prompt", "response", "site"]).to_csv(tmp_path / "table.csv", index=False)
    declared = {
        "study": {"name": "chat"},
        "model": {"source": str(language_model("llama"))},
        "task": CHAT | {"max_length": 24},
        "adapter": {"layers": "last:1", "rank": 4},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.2},
        "training": {"local_steps": 1},
        "federation": {"rounds": 1, "smallest_declared_size": 20},
        "simulation": {
            "processes": 1,
            "arms": ["majority", "untrained-head", "federated", "without-privacy"],
            "data": {"source": "table.csv", "partition": {"by": "column", "column": "site"}},
        },
    }
    run = Run(Scenario.model_validate(declared), tmp_path / "table.csv", tmp_path / "run", SilentProgress())
    run.open(resume=False)
    result = run.execute()
    assert list(result.arms) == ["untrained-head", "federated", "without-privacy"]
    assert result.arms["untrained-head"].title == "base model"
    assert result.final.metric == "perplexity" and not result.final.higher_is_better
    said = load_finished(tmp_path / "run" / "adapter").predict({"prompt": ["word1 word2"]})
    assert len(said) == 1 and set(said[0].split()) <= {"\n", *(w for w in said[0].split())}


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_an_encoder_which_reads_what_it_is_to_foretell_is_refused(tmp_path: Path, family: str) -> None:
    make_folder("masked-lm", family, tmp_path)
    declared = {"study": {"name": "test"}, "model": {"source": str(tmp_path)}, "task": TEXT | {"max_length": 16}}
    with pytest.raises(SettingsError, match=f"Expected a decoder, got model type '{family}'") as refusal:
        build(parse(Study, declared, where="test"))
    assert "masked-lm" in str(refusal.value.hint)
    config = json.loads((tmp_path / "config.json").read_text()) | {"is_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert build(parse(Study, declared, where="test")).layout.length > 0
