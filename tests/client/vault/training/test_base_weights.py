"""Base models in short numbers: per-record gradients are float32, each record's own, and refused where they are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.vault.training.gradient_probe import HALF_TOLERANCE, probe
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.privacy.noise_schedule import plan
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study

Studies, Records = Callable[..., Study], Callable[..., Dataset]
Trainers = Callable[..., PrivateTrainer]


@pytest.fixture
def trainer(make_study: Studies, make_records: Records, device: torch.device) -> Trainers:
    def make(held: str, cache: Path | None = None, **sections: Any) -> PrivateTrainer:
        study = make_study(model={"base_weights": held}, **sections)
        model = build(study).to(device)
        activations = open_activations(model, make_records(9), device, folder=cache, limit_bytes=2**20)
        planned, rates = plan(study.privacy, steps=9), LearningRates(1.0, 1.0)
        checkpointing = study.performance.activation_checkpointing
        return PrivateTrainer(
            model,
            activations,
            planned,
            divisor_size=600,
            learning_rates=rates,
            micro_batch_tokens=128,
            checkpointing=checkpointing,
        )

    return make


@pytest.mark.parametrize("held", ["bfloat16", "4bit"])
@pytest.mark.parametrize(
    "adapter", [{"layers": "all", "method": "lora"}, {"layers": "last:1"}, {"method": "head-only"}]
)
def test_gradients_are_exact_and_in_single_precision(trainer: Trainers, held: str, adapter: dict[str, str]) -> None:
    tested = trainer(held, adapter=adapter)
    assert probe(tested, cache=None).worst < HALF_TOLERANCE / 2
    trained = [p for p in tested.model.parameters() if p.requires_grad]
    tested.per_example_gradients([0])
    assert {p.dtype for p in trained} == {p.grad_sample.dtype for p in trained} == {torch.float32}  # type: ignore[attr-defined]
    frozen = {p.dtype for p in tested.model.base.parameters() if not p.requires_grad and p.dim() > 1}
    assert torch.float32 not in frozen or adapter.get("layers") == "last:1"  # the A of FFA is ours


@pytest.mark.guarantee(
    "a model or adapter for which per-example gradients are not exact is refused before any private step."
)
@pytest.mark.parametrize("held", ["bfloat16", "4bit"])
@pytest.mark.parametrize("fault", ["coupled over the batch", "records permuted", "gradient scaled", "another base"])
def test_inexact_gradients_of_short_numbers_are_refused(
    trainer: Trainers, monkeypatch: pytest.MonkeyPatch, held: str, fault: str
) -> None:
    tested = trainer(held, adapter={"layers": "last:1"})
    head, honest = tested.model.head, tested.model.losses
    if fault == "coupled over the batch":
        monkeypatch.setattr(
            tested.model, "losses", lambda batch: honest(batch) * (1 + 0.01 * honest(batch)[0].detach())
        )
    elif fault == "records permuted":
        flip: Callable[[Tensor], Tensor] = lambda features: type(head).forward(head, features.flip(0)).flip(0)  # noqa: E731
        monkeypatch.setattr(head, "forward", flip)
    elif fault == "gradient scaled":
        monkeypatch.setattr(tested.model, "losses", lambda batch: 1.2 * honest(batch))
    else:
        layer = tested.model.get_submodule("base.base_model.model.encoder.layer.2.output.dense")
        forward = type(layer).forward

        def other(x: Tensor) -> Tensor:  # what training computes, and the plain loop does not
            return forward(layer, x) * (1 if getattr(layer, "plain", not torch.is_grad_enabled()) else 1.5)  # type: ignore[arg-type]

        if held == "bfloat16":
            assert isinstance(layer, nn.Linear)
            monkeypatch.setattr(tested.model, "losses", lambda batch: honest(batch | {"states": 1.5 * batch["states"]}))
        else:
            monkeypatch.setattr(layer, "forward", other)
    with pytest.raises(ExactnessError, match="Expected"):
        probe(tested, cache=None)


@pytest.mark.parametrize("held", ["bfloat16", "4bit"])
def test_stored_activations_are_the_same_bits_and_of_this_base_alone(
    trainer: Trainers, tmp_path: Path, held: str
) -> None:
    stored, anew = (
        trainer(held, cache=tmp_path, adapter={"layers": "last:1"}),
        trainer(held, adapter={"layers": "last:1"}),
    )
    for kept, computed in zip(stored.activations.states(range(9)), anew.activations.states(range(9)), strict=True):
        assert kept.dtype == torch.float32 and torch.equal(kept, computed.cpu())
    names = {trainer(other, adapter={"layers": "last:1"}).model.frozen_id for other in ("float32", "bfloat16", "4bit")}
    assert len(names) == 3


@pytest.mark.parametrize("held", ["float32", "bfloat16", "4bit"])
@pytest.mark.parametrize("layers", ["all", "last:2"])
def test_layers_that_are_computed_again_give_the_same_bits(trainer: Trainers, held: str, layers: str) -> None:
    kept, again = (
        trainer(held, adapter={"layers": layers}, performance={"activation_checkpointing": on}) for on in (False, True)
    )
    for tested in (kept, again):
        drawn = np.random.default_rng(1).standard_normal(tested.model.layout.length)
        tested.model.load((0.2 * drawn).astype(np.float32))
        tested.per_example_gradients(tested.physical_batches(np.arange(9))[0])
    for ours, theirs in zip(kept.model.parameters(), again.model.parameters(), strict=True):
        if ours.requires_grad:
            assert torch.equal(ours.grad_sample, theirs.grad_sample)  # type: ignore[attr-defined]
            assert ours.grad_sample.any()  # type: ignore[attr-defined]
    assert probe(again, cache=None).worst < HALF_TOLERANCE / 2
