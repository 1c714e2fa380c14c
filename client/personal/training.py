"""Trains a personal adapter WITHOUT PRIVACY: no noise, so what comes of it holds a node's records and never leaves it.

It goes on from a finished adapter by the study's own batches, scaled gradients and rates, which fall evenly towards 0.
A fifth of the units is not trained on: of the adapters after each pass over the others, the finished one among them,
the one with the best main metric on that fifth is kept, the latest if several are. The loss would mislead: a head's
outputs grow with every pass, so that a few answers which are wrong and certain outweigh many that became right.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from client.vault.training.randomness import Randomness, StepRandomness
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.adapted_model.model import AdaptedModel
from shared.errors import DataError
from shared.privacy.noise_schedule import schedule_of
from shared.protocol.messages import Vector
from shared.records.ragged import Records, with_units
from shared.study.declaration import Study
from shared.study.schedule import learning_rate_factors

log = logging.getLogger(__name__)
WARNING = "trained WITHOUT PRIVACY on your records; never share this adapter"
ONE_IN = 5
"""One unit in so many chooses the adapter and is not trained on."""
FEWEST_UNITS = 2 * ONE_IN
PASSES = 10
"""Over the records, in expectation: a study takes few steps because each one costs privacy, and these do not."""


class WithoutNoise:
    """Draws batches as another source does, and noise that is zero: UNPROTECTED."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness

    def step(self) -> StepRandomness:
        """Return a step's randomness, whose noise is zero."""
        return _StepWithoutNoise(self._randomness.step())


class _StepWithoutNoise:
    def __init__(self, step: StepRandomness) -> None:
        self.poisson_batch, self.uniforms = step.poisson_batch, step.uniforms

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Return zeros."""
        del scale
        return np.zeros(count, np.int64)


class Activations(Protocol):
    """Opens the frozen activations of records."""

    def __call__(self, records: Records) -> FrozenActivations:
        """Return them."""
        ...


class Personal(NamedTuple):
    """A personal adapter: UNPROTECTED."""

    adapter: Vector
    passes: int
    """Over the records; 0 is the finished adapter itself, which none was better than."""
    steps: int
    """Steps that it took."""


def personalise_without_privacy(
    study: Study,
    model: AdaptedModel,
    records: Records,
    finished: Vector,
    *,
    declared_size: int,
    randomness: Randomness,
    activations: Activations,
    on_pass: Callable[[int], None] = lambda _number: None,
) -> Personal:
    """Train a finished adapter further on a site's own records, without noise.

    Guarantee: none of the records that choose the personal adapter is trained on, and no unit is on both sides.

    Args:
        study: as it was carried out.
        model: of the study, on its device.
        records: that the site trained on.
        finished: packed adapter of the study.
        declared_size: of the site.
        randomness: of the batches.
        activations: opens those of some records.
        on_pass: told the number of each pass that is done.

    Raises:
        DataError: there are too few units.
    """
    log.warning("A personal adapter is %s.", WARNING)
    by_itself = _by_itself(study)
    trained, chosen_by = _parts(records)
    model.load(finished)
    trainer = PrivateTrainer(
        model,
        activations(trained),
        schedule_of(by_itself),
        divisor_size=by_itself.federation.divisor_size(declared_size),
        learning_rates=LearningRates(study.training.learning_rate, study.training.adapter_learning_rate),
        micro_batch_tokens=study.performance.micro_batch_tokens,
        precision=study.performance.precision,
    )
    unseen, source = activations(chosen_by), WithoutNoise(randomness)
    best = Personal(finished, 0, 0)
    as_it_came = highest = _score(study, model, unseen)
    each = math.ceil(1 / study.privacy.sampling_rate)
    for number in range(1, PASSES + 1):
        _pass(trainer, learning_rate_factors(round_number=number, local_steps=each, rounds=PASSES), source)
        score = _score(study, model, unseen)
        if score > as_it_came and score >= highest:
            best, highest = Personal(model.packed(), number, number * each), score
        on_pass(number)
    return best


def _by_itself(study: Study) -> Study:
    """Return a study as one site can carry it out, with nobody to add its updates to."""
    federation = study.federation.model_copy(update={"secure_sum": None, "threshold": None, "colluders": None})
    return study.model_copy(update={"federation": federation})


def _parts(records: Records) -> tuple[Records, Records]:
    """Return the records to train on, and those of one unit in five, which choose.

    Raises:
        DataError: there are too few units with a record that can be used.
    """
    units = np.arange(len(records)) if records.units is None else records.units
    usable = np.unique(units[records.usable])
    if len(usable) < FEWEST_UNITS:
        raise DataError(
            f"Expected at least {FEWEST_UNITS} units to personalise on, got {len(usable)} with usable records."
        )
    chooses = np.isin(units, usable[ONE_IN - 1 :: ONE_IN])
    return _some(records, np.flatnonzero(~chooses)), _some(records, np.flatnonzero(chooses))


def _some(records: Records, rows: NDArray[np.int64]) -> Records:
    some = records.select(rows)
    if records.units is None:
        return some
    return with_units(some, np.unique(records.units[rows], return_inverse=True)[1].astype(np.int64))


def _pass(trainer: PrivateTrainer, factors: Sequence[float], randomness: Randomness) -> None:
    release = trainer.plan.release(len(factors))
    trainer.model.eval()
    with trainer.measuring(False):
        optimizer = trainer.optimizer(release)
        for factor in factors:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["initial_lr"]
            step = randomness.step()
            chosen = step.poisson_batch(trainer.activations.records.unit_count, release.sampling_rate)
            for count in trainer.gradients(chosen):
                optimizer.accumulate(count)
            optimizer.noisy_step(step)


def _score(study: Study, model: AdaptedModel, activations: FrozenActivations) -> float:
    """Return the main metric, with the sign that makes higher better."""
    seen = evaluate(
        model,
        activations.records,
        tokens=study.performance.micro_batch_tokens,
        batch_of=activations.batch,
        sizes=activations.sizes(),
    )
    value = model.kind.metrics(seen.evidence)[model.kind.metric]
    return value if model.kind.higher_is_better else -value
