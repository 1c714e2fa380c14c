"""Measure a private step beside a plain LoRA step: the same tensors, the same micro-batch of MiniLM.

On a GPU if there is one.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from client.vault.training.noise_prefetch import prefetch_noise
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import device_for
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import AdaptedModel, build
from shared.privacy.noise_schedule import plan
from shared.records.batches import collate
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.benchmarks.measure import Ratio, interleaved
from simulations.benchmarks.speed.waiting import until_done

RECORDS, TOKENS, RANK, TURNS = 32, 64, 8, 41


def rows() -> Iterator[Ratio]:
    """Measure LoRA on all layers, on the top two, and on the top two with frozen activations kept."""
    peer = "plain LoRA step"
    yield _compared("private step, LoRA on all layers", peer, layers="all", cached=False)
    yield _compared("private step, last:2", peer, layers="last:2", cached=False)
    yield _compared("private step, last:2, cached", f"{peer}, not cached", layers="last:2", cached=True)


def _compared(measure: str, peer: str, *, layers: str, cached: bool) -> Ratio:
    with tempfile.TemporaryDirectory() as folder:
        ours = _private(_study(layers), Path(folder) if cached else None)
        theirs = _plain(_study(layers))
        return interleaved(measure, peer, ours=until_done(ours), theirs=until_done(theirs), turns=TURNS)


def _private(study: Study, cache: Path | None) -> Callable[[], None]:
    trainer = _trainer(study, cache)
    optimizer, randomness = trainer.optimizer(trainer.plan.release(1)), OsRandomness()

    def step() -> None:
        drawn = prefetch_noise(
            randomness.step(), trainer.model.layout.length, optimizer.noise_scale, trainer.activations.device
        )
        for count in trainer.gradients(np.arange(RECORDS)):
            optimizer.accumulate(count)
        optimizer.noisy_step(drawn)

    return step


def _plain(study: Study) -> Callable[[], None]:
    model = build(study).to(device_for("auto"))
    batch = collate(_records(model), range(RECORDS), model.kind.fills, next(model.parameters()).device)
    targets = batch["target"][:, 0]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _trainer(study: Study, cache: Path | None) -> PrivateTrainer:
    device = device_for("auto")
    model = build(study).to(device)
    activations = open_activations(model, _records(model), device, folder=cache, limit_bytes=2**30)
    schedule = plan(study.privacy, steps=100)
    return PrivateTrainer(
        model, activations, schedule, divisor_size=320, learning_rates=LearningRates(0.1, 0.1), micro_batch_tokens=2048
    )


def _records(model: AdaptedModel) -> Records:
    return model.kind.synthetic(model.config, [TOKENS] * RECORDS, variant=0)


def _study(layers: str) -> Study:
    declared = {
        "study": {"name": "benchmark"},
        "model": {"source": "bundled:minilm"},
        "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": TOKENS},
        "adapter": {"rank": RANK, "layers": layers},
    }
    return parse(Study, declared, where="benchmark")
