"""Trains one arm after the other on an engine, and measures adapters on the sites' held-out records."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from server.app import build_server_app
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import EvaluatePrivately, Floors, no_private_evaluation
from server.rounds.observer import Observer
from server.rounds.participants import AllPresent
from server.rounds.replies import SecureSum
from server.rounds.update_bounds import keep_within, noise_floor, norm_bound
from server.secure_sum.step import step_of
from shared.adapted_model.model import initial_adapter, layout_of
from shared.errors import RunError
from shared.privacy.adapter_bound import part_places
from shared.private_evaluation.choice import Choice
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.messages import Vector
from shared.study.secure_sum import sum_sizes
from simulations.engines import worker
from simulations.engines.local import Engine
from simulations.experiment.arms import Arm, arm_folder
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared
from simulations.private_evaluation import SimulatedEvaluations, read_choice, read_evaluations
from simulations.progress import Progress
from simulations.results.summary import quality
from simulations.server_crash import serve_through_crash
from simulations.sites.open_sum import OpenRounds

OURS = "federated"
EVALUATED_TOGETHER = 256  # held-out records, unless a single site has more


class ArmTraining:
    """The arms of one run on one engine.

    Args:
        engine: runs sites and evaluations.
        scenario: as declared.
        prepared: its sites.
        folder: of the run.
        progress: is told how far each arm is.
    """

    def __init__(
        self, engine: Engine, scenario: Scenario, prepared: Prepared, folder: Path, progress: Progress
    ) -> None:
        self._engine, self._scenario, self._prepared = engine, scenario, prepared
        self._folder, self._progress = folder, progress
        self._final: dict[str, list[worker.Seen]] = {}

    def build_caches(self, arms: list[Arm]) -> None:
        """Compute the frozen activations of sites and of what is evaluated, before anything is timed as training."""
        sites, cohort = self._prepared.sites, self._scenario.federation.cohort
        # of many sites, a cohort may never meet most: theirs are computed when they are asked for the first time
        training = [] if cohort else [site.index for site in sorted(sites, key=lambda site: -site.train)]
        groups, step = evaluated_together(self._prepared), self._progress.step
        # the deepest cut is built from the others' activations, so the study's own cache comes first
        names = [name for name in ("federated", "head-federated") if any(arm.name == name for arm in arms)]
        self._progress.phase("frozen layers", len(names) * (len(training) + len(groups)))
        for name in names:
            self._engine.map(worker.build_training_cache, [(name, index) for index in training], done=step)
            self._engine.map(worker.build_evaluation_cache, [(name, group) for group in groups], done=step)

    def train(self, arm: Arm) -> State:
        """Run an arm's rounds that are not done yet; return its final state.

        Raises:
            RunError: no round aggregated anything.
        """
        folder, states = arm_folder(self._folder, arm.name) / "checkpoints", list[State]()
        initial = initial_adapter(arm.study)
        largest_norm, within = _bounds(arm, initial)
        layout, floors, sizes = layout_of(arm.study), _floors(arm), self._declared_sizes(arm)

        def serve(observer: Observer) -> None:
            app = build_server_app(
                arm.study,
                arm.name,
                folder,
                initial=initial,
                on_done=states.append,
                largest_norm=largest_norm,
                floors=floors,
                parts=[*part_places(layout).values()],
                within=within,
                participants=lambda grid: AllPresent(
                    grid,
                    quorum=arm.study.federation.quorum,
                    patience_s=arm.study.federation.deadline_s,
                    declared_sizes=sizes,
                ),
                evaluate=self._evaluation(arm),
                observer=observer,
                secure_sum=_secure_sum(arm, largest_norm),
                evaluate_privately=lambda _grid: self._private_evaluation(arm, within),
            )
            self._engine.serve(app, self._sizes(arm))

        def latest() -> int:
            state = Checkpoints(folder).latest(study_sha256=arm.study.sha256, study_run=arm.name)
            return state.round if state else 0

        self._progress.arm(arm.title, arm.study.federation.rounds, latest())
        crash_round = arm.trouble and arm.trouble.server_crash_round
        if crash_round:
            serve_through_crash(serve, self._progress, folder.parent, latest, crash_round)
        else:
            serve(self._progress)
        if not states or not any(record["outcome"] == "aggregated" for record in states[0].records):
            answers = (
                Counter(each["status"] for record in states[0].records for each in record["refused"]) if states else {}
            )
            why = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in answers.items())
            raise RunError(
                f"Expected arm {arm.name!r} to aggregate a round, got none; sites answered: {why or 'nothing'}.",
                hint=_dropped_out(arm, answers) or f"See what they logged, and the records in {folder}.",
            )
        return self._handed_out(arm, states[0], folder)

    def _handed_out(self, arm: Arm, state: State, folder: Path) -> State:
        """Return a final state with the adapter that is handed out: that of an earlier round, if it was chosen."""
        choice = self.choice(arm)
        if choice is None or (number := choice.handed_out(state.round)) == state.round:
            return state
        self._final.pop(arm.name, None)  # predictions of the last round's
        return replace(state, adapter=Checkpoints(folder).adapter(number))

    def choice(self, arm: Arm) -> Choice | None:
        """Return the choice among the private evaluations of an arm; None if it has none."""
        if arm.name != OURS:
            return None
        return read_choice(arm.study, arm_folder(self._folder, arm.name) / "evaluations")

    def predictions(self, arm: Arm, state: State) -> list[worker.Seen]:
        """Return a trained arm's final predictions; one that was trained before this start is evaluated again."""
        if arm.name not in self._final:
            self._final[arm.name] = self.evaluate(arm.name, state.adapter)
        return self._final[arm.name]

    def evaluate(self, arm_name: str, adapter: Vector) -> list[worker.Seen]:
        """Predict all sites' held-out records with an adapter of an arm."""
        calls = [(arm_name, group, adapter) for group in evaluated_together(self._prepared)]
        groups: list[list[worker.Seen]] = self._engine.map(worker.evaluate_sites, calls)
        return [*chain.from_iterable(groups)]

    def personalise(self, site_indices: list[int], adapter: Vector) -> list[worker.PersonalSite]:
        """Train a finished federated adapter further at some sites, each by itself and WITHOUT PRIVACY."""
        self._progress.phase("personal", len(site_indices))
        calls = [(OURS, index, adapter) for index in site_indices]
        sites: list[worker.PersonalSite] = self._engine.map(worker.personal_site, calls, done=self._progress.step)
        return sites

    def private_evaluations(self) -> Sequence[Evaluated]:
        """Return the private evaluations of the study's own arm, in order."""
        return read_evaluations(arm_folder(self._folder, OURS) / "evaluations")

    def _private_evaluation(self, arm: Arm, within: Callable[[int, Vector], Vector]) -> EvaluatePrivately:
        if arm.name != OURS or arm.study.evaluation is None:
            return no_private_evaluation
        sites = {site.name: site.index for site in self._prepared.sites}

        def counts(number: int, adapter: Vector) -> dict[str, NDArray[np.int64]]:
            calls = [(arm.name, index, number, adapter) for index in sites.values()]
            return dict(zip(sites, self._engine.map(worker.noisy_counts, calls), strict=True))

        folder = arm_folder(self._folder, arm.name) / "evaluations"
        return SimulatedEvaluations(arm.study, folder, counts, within).after

    def _evaluation(self, arm: Arm) -> Callable[[int, Vector], dict[str, Any]]:
        rounds, simulation = arm.study.federation.rounds, self._scenario.simulation
        interval = simulation.evaluate_every if arm.name == OURS or simulation.curves == "all" else rounds

        def evaluate(number: int, adapter: Vector) -> dict[str, Any]:
            if number != rounds and (number == 0 or number % interval):
                return {}
            seen = self.evaluate(arm.name, adapter)
            if number == rounds:
                self._final[arm.name] = seen
            return quality(self._scenario.as_study(), seen, last=number == rounds).model_dump()

        return evaluate

    def _sizes(self, arm: Arm) -> list[int]:
        """Training records of each node of an arm."""
        by_index = {site.index: site.train for site in self._prepared.sites}
        sizes = [by_index[index] for index in arm.site_indices]
        return [sum(sizes)] if arm.pooled else sizes

    def _declared_sizes(self, arm: Arm) -> dict[int, int]:
        """Declared size of each node of an arm, by its number on the grid."""
        by_index = {site.index: site.declared_size for site in self._prepared.sites}
        sizes = [by_index[index] for index in arm.site_indices]
        return dict(enumerate([sum(sizes)] if arm.pooled else sizes, start=1))


def evaluated_together(prepared: Prepared) -> list[tuple[int, ...]]:
    """Group sites for evaluation, the largest first and small ones together, so that thousands make few batches."""
    groups, group, held_out = list[tuple[int, ...]](), list[int](), 0
    for site in sorted(prepared.evaluated, key=lambda site: -site.holdout):
        group, held_out = [*group, site.index], held_out + site.holdout
        if held_out >= EVALUATED_TOGETHER:
            groups.append(tuple(group))
            group, held_out = [], 0
    return [*groups, tuple(group)] if group else groups


def _secure_sum(arm: Arm, largest_norm: Callable[[int], float]) -> Callable[[Grid], SecureSum] | None:
    """Return what makes the rounds of an arm with a secure sum; None for an arm without one."""
    federation = arm.study.federation
    if federation.secure_sum is None:
        return None
    sizes = sum_sizes(len(arm.site_indices), federation)
    rounds = OpenRounds(step_of(arm.study, layout_of(arm.study), lambda: sizes, largest_norm), sizes.threshold)
    return lambda _grid: rounds


def _floors(arm: Arm) -> Floors | None:
    """Return what noise makes of updates; None where steps are not our own private ones."""
    if not arm.protected or arm.recipe != "own":
        return None
    return lru_cache(maxsize=None)(partial(noise_floor, arm.study, layout_of(arm.study)))


def _dropped_out(arm: Arm, answers: Mapping[str, int]) -> str:
    """Return what to do where most answers were lost on purpose; empty if these were others."""
    drop_out, sites = arm.trouble.drop_out if arm.trouble else 0.0, len(arm.site_indices)
    if not drop_out or 2 * answers.get("lost", 0) <= sum(answers.values()):
        return ""
    return (
        f"With simulation.trouble.drop_out={drop_out:g}, {(1 - drop_out) * sites:.2g} of {sites} sites answer a round "
        f"on average, and federation.quorum={arm.study.federation.quorum} have to: lower drop_out, or take more sites."
    )


def _bounds(arm: Arm, initial: Vector) -> tuple[Callable[[int], float], Callable[[int, Vector], Vector]]:
    """Return the bound on updates, and what cuts adapters back: nothing, where steps are not our own private ones."""
    if not arm.protected or arm.recipe != "own":
        return lambda _number: float("inf"), lambda _number, adapter: adapter
    layout = layout_of(arm.study)
    return lambda number: norm_bound(arm.study, number, layout), keep_within(arm.study, layout, initial)
