"""Every text kind through every role: exact gradients, a private round, a judgement, an export that is read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from client.vault.training.gradient_probe import probe
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import LearningRates, PrivateTrainer
from server.export.adapter import export, load_finished
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import AdaptedModel, build, initial_adapter
from shared.privacy.noise_schedule import plan
from shared.protocol.messages import Status, TrainTask
from shared.records.ragged import Records
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"  # PEFT asks transformers for it
)
Studies = Callable[..., Study]
TASKS: dict[str, dict[str, Any]] = {
    "token-classification": {"kind": "token-classification", "labels": ["O", "B-PER", "I-PER"], "max_length": 24},
    "question-answering": {"kind": "question-answering", "max_length": 24},
    "masked-lm": {"kind": "masked-lm", "max_length": 24, "masked": 0.3},
    "multi-task": {
        "kind": "multi-task",
        "tasks": {
            "mood": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
            "names": {"kind": "token-classification", "labels": ["O", "B-PER", "I-PER"], "max_length": 24},
            "reading": {"kind": "question-answering", "max_length": 24},
        },
    },
    "recommendation": {
        "kind": "recommendation",
        "goal": "ranking",
        "rating_range": [1, 5],
        "ids": ["user"],
        "id_width": 12,
        "max_length": 24,
    },
}
ROWS: dict[str, dict[str, list[str]]] = {
    "token-classification": {
        "tokens": ["ada lives in paris", "paris ada", "bad"],
        "tags": ["B-PER O O O", "O B-PER", "?"],
    },
    "question-answering": {
        "question": ["who lives", "where lives ada", "who"],
        "context": ["ada lives in paris", "in paris ada lives .", "bad"],
        "answer": ["ada", "paris", "good"],
    },
    "masked-lm": {"text": ["ada lives in paris .", "good bad word1 word2 word3 word4 word5", ""]},
    "multi-task": {
        "task": ["mood", "names", "reading", "who knows"],
        "text": ["good word1", "", "", "bad"],
        "label": ["yes", "", "", "no"],
        "tokens": ["", "ada lives", "", ""],
        "tags": ["", "B-PER O", "", ""],
        "question": ["", "", "who lives in paris", ""],
        "context": ["", "", "ada lives in paris", ""],
        "answer": ["", "", "ada", ""],
    },
    "recommendation": {
        "text": ["good word1", "bad", "word2 word3 good", ""],
        "rating": ["5", "1", "4", "3"],
        "user": ["u1", "", "u2", "u1"],
        "group": ["g", "g", "g", "g"],
    },
}
METHODS = [("bert", "ffa-lora"), ("bert", "lora"), ("bert", "dora"), ("bert", "ia3")]
METHODS += [("roberta", "ffa-lora"), ("roberta", "lora")]


def adapted(text_study: Studies, task: str, family: str, method: str, layers: str = "last:1") -> Study:
    aggregation = "fedit" if method in ("lora", "dora") else "ffa"
    rank = {} if method == "ia3" else {"rank": 2}
    return text_study(
        TASKS[task],
        family,
        adapter={"method": method, "layers": layers} | rank,
        federation={"rounds": 2, "smallest_declared_size": 4, "aggregation": aggregation},
    )


def records_of(model: AdaptedModel, task: str, times: int = 1) -> Records:
    rows = {name: cells * times for name, cells in ROWS[task].items()}
    return model.kind.encode(rows, model.kind.processor(model.base_files)).records


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("family", "method"), METHODS)
def test_gradients_are_those_of_single_records(
    text_study: Studies, tmp_path: Path, device: torch.device, task: str, family: str, method: str
) -> None:
    study = adapted(text_study, task, family, method, "all" if method == "lora" else "last:1")
    model = build(study).to(device)
    activations = open_activations(model, records_of(model, task), device, folder=None, limit_bytes=0)
    rates, planned = LearningRates(1.0, 1.0), plan(study.privacy, steps=4)
    trainer = PrivateTrainer(model, activations, planned, divisor_size=10, learning_rates=rates, micro_batch_tokens=512)
    assert probe(trainer, cache=tmp_path if method == "ffa-lora" else None) < 1e-5


@pytest.mark.parametrize("task", TASKS)
def test_a_private_round_trains_is_judged_and_exported(text_study: Studies, tmp_path: Path, task: str) -> None:
    study = adapted(text_study, task, "bert", "ffa-lora")
    model, start = build(study), initial_adapter(study)
    vault = RoundTrainer(
        study,
        model,
        records_of(model, task, times=4),
        declared_size=10,
        randomness=lambda number: SeededRandomnessForSimulation(1, number),
        cache=tmp_path / "cache",
    )
    reply = vault.train(TrainTask(study.sha256, "run", 1, start))
    assert reply.status is Status.TRAINED and reply.update.any()
    finished = start + reply.update
    export(study, finished, tmp_path / "out")
    check_reloaded(study, finished, tmp_path / "out", task)


def check_reloaded(study: Study, finished: np.ndarray[Any, Any], folder: Path, task: str) -> None:
    model = build(study)
    model.load(finished)
    records = records_of(model, task)
    judged = evaluate(model, records, tokens=256, with_loss=True)
    assert len(judged.evidence) == int(records.usable.sum()) < len(records)
    assert all(np.isfinite(value) for value in model.kind.metrics(judged.evidence).values())
    again = load_finished(folder)._model
    assert evaluate(again, records, tokens=16, with_loss=True).loss == pytest.approx(judged.loss, rel=1e-4)
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(study.model.source, add_pooling_layer=False), folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model.base(input_ids=ids).last_hidden_state
        torch.testing.assert_close(plain.eval()(input_ids=ids).last_hidden_state, expected)
