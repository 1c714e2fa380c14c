"""Audit a scenario: canaries under its study's noise, with controls, and a membership attack on its records.

Canaries go through training on a tiny model of our own, whose trained space has a direction for each: noise, sampling,
steps, clipping, unit and encoding are the study's. A secure sum is left out: what is attacked is a node's own update.
The membership attack takes the scenario's own model and records.
"""

import importlib.metadata
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from client.vault.training.randomness import OsRandomness, Randomness
from shared.evidence.audit_result import AuditResult, CanaryAudit, Control, MembershipAttack
from shared.study.declaration import Study
from simulations.audit.audit import audit, ideal_bounds, nearly_always
from simulations.audit.audited_site import Claim
from simulations.audit.canaries import LENGTH
from simulations.audit.controls import divisor_from_the_data, one_seed_twice, part_of_the_noise, without_clipping
from simulations.audit.lone_record import RUNS, guess_by_size
from simulations.audit.lone_record import SHARE as SHARE_BY_SIZE
from simulations.audit.membership import hits, largest_rate, suspicion
from simulations.audit.one_run_bound import Guesses, epsilon_of_gaussian
from simulations.audit.shadows import train_shadows
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared

CANARIES, ADAPTERS = 5000, 8
HONEST_ATTACKS, CONTROLS = 2, 4
WHOLE_BATCHES = 8
"""Steps of a schedule without sampling."""
TRIES = 2
"""One attack in ten may miss a fault that it has to catch; so many in a row, one in a hundred."""
WORDS = {2: "half of the noise", 3: "a third of the noise"}


class Fault(NamedTuple):
    """A fault that is put in, where an attack shows it."""

    words: str
    claim: Claim
    """Under the study's own schedule if it shows there, else under whole batches, of which an attack sees most."""
    bounds: list[float]
    """What ideal noise with the fault would show."""
    patch: Callable[[], AbstractContextManager[None]] = nullcontext
    seed_twice: bool = False

    @property
    def shows(self) -> bool:
        """Return true if nine of ten attacks refute the claim."""
        return nearly_always(self.bounds) > self.claim.epsilon


def audit_scenario(
    scenario: Scenario,
    prepared: Prepared,
    folder: Path,
    *,
    canaries: int = CANARIES,
    adapters: int = ADAPTERS,
    done: Callable[[], None] = lambda: None,
) -> AuditResult:
    """Attack a scenario's training in both ways.

    Args:
        scenario: as declared.
        prepared: its sites.
        folder: for models, cached activations and probe verdicts.
        canaries: number of them.
        adapters: of each kind, for the membership attack.
        done: called after each attack and each adapter.

    Raises:
        ExactnessError: a round of the audited study could not be trained.
        RunError: a round of a shadow adapter could not be trained.
    """
    study, threads = scenario.as_study(), torch.get_num_threads()
    torch.set_num_threads(1)  # products are so small that further threads only wait for one another
    try:
        bound = audit_study(study, folder, canaries=canaries, done=done)
    finally:
        torch.set_num_threads(threads)
    return AuditResult(
        fedvault_version=importlib.metadata.version("fedvault"),
        date=datetime.now(UTC).date().isoformat(),
        study_sha256=study.sha256,
        canaries=bound,
        membership=attack_members(scenario, prepared, folder, adapters=adapters, done=done),
    )


def audit_study(
    study: Study,
    folder: Path,
    *,
    canaries: int = CANARIES,
    seed: int = 1,
    randomness: Callable[[int], Randomness] = lambda _round: OsRandomness(),
    done: Callable[[], None] = lambda: None,
) -> CanaryAudit:
    """Bound a study's epsilon from below, and put faults in that this has to show.

    Args:
        study: as declared.
        folder: for models and probe verdicts.
        canaries: number of them.
        seed: of the coins that put canaries in.
        randomness: of each round's sampling and noise; a node's by default.
        done: called after each attack.
    """
    claim = claim_of(study, canaries)
    honest = audit(claim, folder, seed=seed, randomness=randomness)
    done()
    by_size = epsilon_of_gaussian(guess_by_size(claim, folder, seed=seed, randomness=randomness), delta=claim.delta)
    done()
    controls = []
    for fault in faults_for(claim):
        source = one_seed_twice(seed) if fault.seed_twice else randomness
        controls.append(_control(fault, folder, seed, source))
        done()
    controls.append(_control_by_size(claim, folder, seed, randomness))
    done()
    return CanaryAudit(
        epsilon_stated=claim.epsilon,
        delta=claim.delta,
        unit=claim.unit,
        sampling_rate=claim.sampling_rate,
        steps=claim.rounds,
        canaries=canaries,
        guesses=honest.guesses.guessed,
        correct=honest.guesses.correct,
        epsilon_at_least=honest.epsilon_at_least,
        epsilon_at_least_any=honest.epsilon_at_least_any,
        epsilon_if_ideal=honest.power,
        epsilon_by_size=by_size,
        controls=tuple(controls),
    )


def claim_of(study: Study, canaries: int) -> Claim:
    """Return what a study promises, as an audit tests it: each of its steps is a round, and so released by itself."""
    privacy = study.privacy
    return Claim(
        privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=privacy.sampling_rate,
        rounds=study.total_steps,
        unit=privacy.unit,
        whitening=study.training.whitening,
        canaries=canaries,
        clipping=privacy.clipping,
        wire=study.federation.wire,
    )


def faults_for(claim: Claim) -> list[Fault]:
    """Return the faults that canaries have to catch: of noise, the first of a half and a third that shows."""
    # without whitening, whose first round trains other numbers: a seed that is used for both rounds would not show
    own = replace(claim, whitening=False)
    schedules = (own, replace(own, sampling_rate=1.0, rounds=WHOLE_BATCHES))

    def of_noise(schedule: Claim, parts: int) -> Fault:
        bounds = ideal_bounds(schedule, noise=1 / parts)
        return Fault(WORDS[parts], schedule, bounds, partial(part_of_the_noise, parts))

    tried = (
        [of_noise(schedule, parts) for schedule in schedules for parts in WORDS],
        [Fault("no clipping", one, ideal_bounds(one, noise=1 / LENGTH), without_clipping) for one in schedules],
        [Fault("one seed twice", one, ideal_bounds(one, seed_twice=True), seed_twice=True) for one in schedules],
    )
    return [next((fault for fault in faults if fault.shows), faults[-1]) for faults in tried]


def attack_members(
    scenario: Scenario, prepared: Prepared, folder: Path, *, adapters: int = ADAPTERS, done: Callable[[], None]
) -> MembershipAttack:
    """Guess who took part in adapters of the largest site.

    Args:
        scenario: as declared.
        prepared: its sites.
        folder: for cached activations and probe verdicts.
        adapters: to train of each kind.
        done: called after each adapter.
    """
    shadows = train_shadows(scenario, prepared, folder, adapters=adapters, done=done)
    private, bare = (
        hits(suspicion(losses, shadows.included), shadows.included)
        for losses in (shadows.private, shadows.without_privacy)
    )
    return MembershipAttack(
        site=shadows.site.name,
        unit=scenario.privacy.unit,
        units=shadows.included.shape[1],
        adapters=adapters,
        private=private,
        without_privacy=bare,
        most=largest_rate(scenario.privacy.epsilon, scenario.privacy.delta),
    )


def attacks(adapters: int = ADAPTERS) -> int:
    """Return how many times `done` is called in all."""
    return HONEST_ATTACKS + CONTROLS + 2 * adapters


def _control(fault: Fault, folder: Path, seed: int, randomness: Callable[[int], Randomness]) -> Control:
    control = Control(
        fault=fault.words,
        sampling_rate=fault.claim.sampling_rate,
        steps=fault.claim.rounds,
        epsilon_if_ideal=float(np.mean(fault.bounds)),
        must_be_caught=fault.shows,
    )
    if not control.must_be_caught:
        return control
    shown = 0.0
    with fault.patch():
        for attempt in range(TRIES):
            shown = max(shown, audit(fault.claim, folder, seed=seed + attempt, randomness=randomness).epsilon_at_least)
            if shown > fault.claim.epsilon:
                break
    return control.model_copy(update={"epsilon_at_least": shown, "caught": shown > fault.claim.epsilon})


def _control_by_size(claim: Claim, folder: Path, seed: int, randomness: Callable[[int], Randomness]) -> Control:
    guessed = 2 * int(SHARE_BY_SIZE * RUNS)
    ideal = epsilon_of_gaussian(Guesses(RUNS, guessed, guessed), delta=claim.delta)
    control = Control(
        fault="a divisor from the data",
        sampling_rate=1.0,
        steps=1,
        epsilon_if_ideal=ideal,
        must_be_caught=ideal > claim.epsilon,
    )
    if not control.must_be_caught:
        return control
    shown = 0.0
    with divisor_from_the_data():
        for attempt in range(TRIES):
            guesses = guess_by_size(claim, folder, seed=seed + attempt, randomness=randomness)
            shown = max(shown, epsilon_of_gaussian(guesses, delta=claim.delta))
            if shown > claim.epsilon:
                break
    return control.model_copy(update={"epsilon_at_least": shown, "caught": shown > claim.epsilon})
