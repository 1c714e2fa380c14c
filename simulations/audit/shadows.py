"""Adapters of one site, each trained on a random half of its units: what a membership attack learns from.

The site trains alone: nobody else's noise and nobody else's records hide its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.answer import Trainer
from client.vault.training.round_trainer import RoundTrainer, device_for
from client.vault.training.trainer import PrivateTrainer
from server.aggregation.mean import UniformMean
from server.rounds.update_bounds import keep_within
from shared.adapted_model.frozen_activations import FrozenActivations, activations_for
from shared.adapted_model.model import AdaptedModel, build
from shared.errors import RunError
from shared.privacy.noise_schedule import declared_size
from shared.protocol.messages import Status, TrainTask, Vector
from shared.records.batches import physical
from shared.records.ragged import Records, load, with_units
from shared.study.sections import RECORD
from simulations.audit.membership import Included, Losses
from simulations.experiment.arms import Arm, trained_arms
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared, Site
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from simulations.sites.without_privacy import SiteWithoutPrivacy

MOST_UNITS = 2000
"""More of them are not attacked: adapters are trained on a half of these."""
ARMS = ("single-site", "federated", "without-privacy")


class Shadows(NamedTuple):
    """Losses under adapters of each kind, on the same halves."""

    site: Site
    included: Included
    private: Losses
    without_privacy: Losses


class Half(FrozenActivations):
    """Some of a site's records, whose activations are those of the whole site."""

    recomputes = False

    def __init__(self, complete: FrozenActivations, rows: NDArray[np.int64], records: Records) -> None:
        super().__init__(complete.model, records, complete.device, storage=complete.storage)
        self._complete, self._rows = complete, rows

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Return activations of the whole site's records."""
        return self._complete.states(self._rows[list(indices)].tolist())

    def look_ahead(self, indices: Sequence[int]) -> None:
        """Do nothing: the whole site's activations are there."""


class HalfSite(RoundTrainer):
    """The node's own trainer, on activations that are there."""

    half: Half

    def trainer(self) -> PrivateTrainer:
        """Return the trainer on the half."""
        if self._trainer is None:
            self._show_exact()
            self._trainer = self._trainer_on(self.half)
        return self._trainer


def train_shadows(
    scenario: Scenario,
    prepared: Prepared,
    folder: Path,
    *,
    adapters: int,
    done: Callable[[], None] = lambda: None,
) -> Shadows:
    """Train adapters on random halves of the largest site, privately and without privacy.

    Args:
        scenario: as declared; the site follows its study, as in the arm `single-site`.
        prepared: its sites.
        folder: for cached activations and probe verdicts.
        adapters: of each kind.
        done: called after each adapter.

    Raises:
        RunError: a round was not trained.
    """
    simulation = scenario.simulation.model_copy(update={"arms": ARMS, "single_site": "largest"})
    arms = trained_arms(scenario.model_copy(update={"simulation": simulation}), prepared.sites)
    single_site = next(arm for arm in arms if arm.name.startswith("single-site"))
    bare = next(arm for arm in arms if arm.name == "without-privacy")
    site = next(site for site in prepared.sites if site.index == single_site.site_indices[0])
    generator = np.random.default_rng([scenario.simulation.seed, 4])
    records, units = _attacked(load(prepared.train_path(site)), generator)
    included = generator.random((adapters, int(units.max()) + 1)) < 0.5
    private, without = (_losses(arm, records, units, included, folder, done) for arm in (single_site, bare))
    return Shadows(site, included, private, without)


def _attacked(records: Records, generator: np.random.Generator) -> tuple[Records, NDArray[np.int64]]:
    """Return usable records of some units, and each record's unit, from 0."""
    units = np.arange(len(records)) if records.units is None else records.units
    there = np.unique(units[records.usable])
    chosen = generator.permutation(there)[:MOST_UNITS]
    rows = np.flatnonzero(records.usable & np.isin(units, chosen))
    return records.select(rows), np.unique(units[rows], return_inverse=True)[1]


def _losses(
    arm: Arm,
    records: Records,
    units: NDArray[np.int64],
    included: Included,
    folder: Path,
    done: Callable[[], None],
) -> Losses:
    model = build(arm.study).to(device_for(arm.study.performance.device))
    device = next(model.parameters()).device
    complete = activations_for(model, records, device, arm.study.performance, folder / "cache")
    losses = np.empty(included.shape)
    for number, members in enumerate(included):
        rows = np.flatnonzero(members[units])
        part = records.select(rows)
        if arm.study.privacy.unit != RECORD:
            part = with_units(part, np.unique(units[rows], return_inverse=True)[1])
        trainer = _site(arm, model, Half(complete, rows, part), number, folder)
        model.load(_trained(arm, model, trainer))
        by_record = _loss_by_record(model, complete, arm.study.performance.micro_batch_tokens)
        losses[number] = np.bincount(units, by_record) / np.bincount(units)
        done()
    return losses


def _site(arm: Arm, model: AdaptedModel, half: Half, number: int, folder: Path) -> Trainer:
    def seeded(round_number: int) -> SeededRandomnessForSimulation:
        return SeededRandomnessForSimulation(arm.seed, "shadow", number, round_number)

    # a half may be smaller than a node that may take part: it divides by a larger number then
    size = max(declared_size(half.records.unit_count), arm.study.federation.smallest_declared_size)
    if not arm.protected:
        unclipped = arm.recipe == "unclipped"
        return SiteWithoutPrivacy(arm.study, model, half, declared_size=size, randomness=seeded, unclipped=unclipped)
    site = HalfSite(
        arm.study, model, half.records, declared_size=size, randomness=seeded, verdicts=folder / "cache" / "verdicts"
    )
    site.half = half
    return site


def _trained(arm: Arm, model: AdaptedModel, site: Trainer) -> Vector:
    adapter = model.start
    within = keep_within(arm.study, model.layout, model.start)
    for number in range(1, arm.study.federation.rounds + 1):
        if arm.protected:
            adapter = within(number, adapter)
        task = TrainTask(arm.study.sha256, arm.name, number, adapter, wire=arm.study.federation.wire)
        reply = site.train(task)
        if reply.status is not Status.TRAINED:
            raise RunError(f"Expected round {number} of a shadow adapter to be trained, got {reply.status.name}.")
        mean = UniformMean(len(adapter))
        mean.add(reply.update)
        adapter = mean.result(adapter)
    return adapter


def _loss_by_record(model: AdaptedModel, activations: FrozenActivations, tokens: int) -> NDArray[np.float64]:
    losses = np.empty(len(activations.records))
    everything = np.arange(len(losses))
    with torch.no_grad():
        for part in physical(activations.sizes(), everything, tokens=tokens, fixed=model.kind.fixed_tokens):
            losses[part] = model.losses(activations.batch(part)).double().cpu().numpy()
    return losses
