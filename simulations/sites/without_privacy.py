"""Federated training WITHOUT PRIVACY: no noise. A reference for simulations, never for real data.

It takes a private site's steps and leaves the noise out. Its batches are drawn as its twin's are, by draws of their
own: the two differ by what the noise costs, and by what other batches do. Plain gradients, at rates that somebody must
choose for each task, are there too.

It lives in `simulations`, which a node never imports, and it warns whenever it runs.
"""

import logging
from collections.abc import Callable, Sequence

import torch

from client.personal.training import WithoutNoise
from client.vault.training.randomness import Randomness
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.adapted_model.model import AdaptedModel
from shared.privacy.noise_schedule import schedule_of
from shared.protocol.messages import Status, TrainReply, TrainTask, Vector
from shared.study.declaration import Study
from shared.study.schedule import round_factors

log = logging.getLogger(__name__)


class SiteWithoutPrivacy:
    """Answers train tasks with an UNPROTECTED update: a private site's steps without noise.

    Args:
        study: as declared, with the arm's own rates.
        model: to be trained.
        activations: of the site's records.
        declared_size: of the site.
        randomness: of a round, by its number.
        unclipped: whether it takes plain gradients, of whatever length, instead of a private site's.
    """

    def __init__(
        self,
        study: Study,
        model: AdaptedModel,
        activations: FrozenActivations,
        *,
        declared_size: int,
        randomness: Callable[[int], Randomness],
        unclipped: bool = False,
    ) -> None:
        self._study, self._model, self._randomness, self._unclipped = study, model, randomness, unclipped
        rates = LearningRates(study.training.learning_rate, study.training.adapter_learning_rate)
        self._trainer = PrivateTrainer(
            model,
            activations,
            schedule_of(study),
            divisor_size=study.federation.divisor_size(declared_size),
            learning_rates=rates,
            micro_batch_tokens=study.performance.micro_batch_tokens,
            precision=study.performance.precision,
        )
        log.warning("Training WITHOUT PRIVACY: nothing this arm releases is protected.")

    def train(self, task: TrainTask) -> TrainReply:
        """Train without noise."""
        factors, measures = round_factors(self._study, task.round), self._study.measures(task.round)
        randomness = self._randomness(task.round)
        if self._unclipped:
            update = self._plain_round(task.adapter, factors, randomness, measures=measures)
        else:
            update = self._trainer.train_round(
                task.adapter, factors=factors, randomness=WithoutNoise(randomness), measures=measures
            )
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)

    def _plain_round(
        self, received: Vector, factors: Sequence[float], randomness: Randomness, *, measures: bool
    ) -> Vector:
        self._model.load(received)
        with self._trainer.measuring(measures):
            for factor in factors:
                self._step(factor, randomness)
        return self._model.packed() - received

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
