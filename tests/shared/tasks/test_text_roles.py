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
from tests.support.task_examples import EXAMPLES

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"  # PEFT asks transformers for it
)
Studies = Callable[..., Study]
KINDS = ("token-classification", "question-answering", "masked-lm", "multi-task", "recommendation")
METHODS = [("bert", "ffa-lora"), ("bert", "lora"), ("bert", "dora"), ("bert", "ia3")]
METHODS += [("roberta", "ffa-lora"), ("roberta", "lora")]


def adapted(text_study: Studies, task: str, family: str, method: str, layers: str = "last:1") -> Study:
    aggregation = "fedit" if method in ("lora", "dora") else "ffa"
    rank = {} if method == "ia3" else {"rank": 2}
    return text_study(
        {"kind": task, **EXAMPLES[task].declared},
        family,
        adapter={"method": method, "layers": layers} | rank,
        federation={"rounds": 2, "smallest_declared_size": 4, "aggregation": aggregation},
    )


def records_of(model: AdaptedModel, task: str, times: int = 1) -> Records:
    rows = {name: cells * times for name, cells in EXAMPLES[task].rows.items()}
    return model.kind.encode(rows, model.kind.processor(model.base_files)).records


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize(("family", "method"), METHODS)
def test_gradients_are_those_of_single_records(
    text_study: Studies, tmp_path: Path, device: torch.device, task: str, family: str, method: str
) -> None:
    study = adapted(text_study, task, family, method, "all" if method == "lora" else "last:1")
    model = build(study).to(device)
    activations = open_activations(model, records_of(model, task), device, folder=None, limit_bytes=0)
    rates, planned = LearningRates(1.0, 1.0), plan(study.privacy, steps=4)
    trainer = PrivateTrainer(
        model, activations, planned, divisor_size=1000, learning_rates=rates, micro_batch_tokens=512
    )
    assert probe(trainer, cache=tmp_path if method == "ffa-lora" else None).worst < 1e-5


@pytest.mark.parametrize("task", KINDS)
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
    again = load_finished(folder).model
    assert evaluate(again, records, tokens=16, with_loss=True).loss == pytest.approx(judged.loss, rel=1e-4)
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(study.model.source, add_pooling_layer=False), folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model.base(input_ids=ids).last_hidden_state
        torch.testing.assert_close(plain.eval()(input_ids=ids).last_hidden_state, expected)
