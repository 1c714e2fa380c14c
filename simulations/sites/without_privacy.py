"""Federated training WITHOUT PRIVACY: no clipping, no noise. A reference for simulations, never for real data.

It lives in `simulations`, which a node never imports, and it warns whenever it runs.
"""

import logging
from collections.abc import Callable

import torch

from client.vault.training.randomness import Randomness
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.adapted_model.model import AdaptedModel
from shared.privacy.noise_schedule import plan
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.study.declaration import Study
from shared.study.schedule import round_factors

log = logging.getLogger(__name__)


class SiteWithoutPrivacy:
    """Answers train tasks with an UNPROTECTED update: the same batches and steps, plain gradients."""

    def __init__(
        self,
        study: Study,
        model: AdaptedModel,
        activations: FrozenActivations,
        *,
        declared_size: int,
        randomness: Callable[[int], Randomness],
    ) -> None:
        self._study, self._model, self._randomness = study, model, randomness
        rates = LearningRates(study.training.learning_rate, study.training.adapter_learning_rate)
        self._trainer = PrivateTrainer(
            model,
            activations,
            plan(study.privacy, steps=study.total_steps),
            divisor_size=study.federation.divisor_size(declared_size),
            learning_rates=rates,
            micro_batch_tokens=study.performance.micro_batch_tokens,
            precision=study.performance.precision,
        )
        log.warning("Training WITHOUT PRIVACY: nothing this arm releases is protected.")

    def train(self, task: TrainTask) -> TrainReply:
        """Train without clipping or noise."""
        self._model.load(task.adapter)
        randomness = self._randomness(task.round)
        with self._trainer.measuring(self._study.measures(task.round)):
            for factor in round_factors(self._study, task.round):
                self._step(factor, randomness)
        update = self._model.packed() - task.adapter
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)

    def _step(self, factor: float, randomness: Randomness) -> None:
        trainer = self._trainer
        chosen = randomness.step().poisson_batch(trainer.activations.records.unit_count, trainer.plan.sampling_rate)
        named = [p for p in self._model.parameters() if p.requires_grad]
        sums = [torch.zeros_like(p) for p in named]
        for _ in trainer.gradients(chosen):
            for total, parameter in zip(sums, named, strict=True):
                total += parameter.grad_sample.sum(0)  # type: ignore[attr-defined]
                parameter.grad_sample = None  # type: ignore[attr-defined]
        rates = {p: group["lr"] for group in trainer.groups() for p in group["params"]}
        with torch.no_grad():
            for total, parameter in zip(sums, named, strict=True):
                parameter.sub_(factor * rates[parameter] * total / trainer.divisor)
