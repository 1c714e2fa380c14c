"""Run a scenario: prepare the data, train every arm, compare, and leave a folder that explains itself.

A run can be cut at any moment and resumed: arms that are done are not run again, and the one in progress goes on from
its last round.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from client.vault.training.round_trainer import device_for
from server.app import build_server_app
from server.export.adapter import export
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.observer import Observer
from server.rounds.update_bounds import norm_bound
from shared.adapted_model.adapters import Layout
from shared.adapted_model.measured import is_measured
from shared.adapted_model.model import initial_adapter, layout_of
from shared.errors import FedVaultError, RunError, SettingsError
from shared.files import write_atomically
from shared.protocol.messages import Vector
from shared.records.ragged import joined, load
from shared.tasks.registry import task_kind
from simulations.engines import worker
from simulations.engines.local import Engine, LocalEngine
from simulations.experiment.arms import Arm, arm_folder, trained_arms, write_arm
from simulations.experiment.prepare import Prepared, prepare, reopen
from simulations.experiment.scenario import Scenario
from simulations.results.result import ArmResult, Quality, Result, read_result, write_result
from simulations.results.summary import quality, summary, trained, untrained

EVALUATED_TOGETHER = 256  # held-out records, unless a single site has more


class Progress(Observer, Protocol):
    """Receives how far a run is: an observer of every arm's rounds, and of what comes before and between them."""

    def phase(self, name: str, steps: int = 1) -> None:
        """A phase begins."""
        ...

    def step(self) -> None:
        """One of its steps is done."""
        ...

    def arm(self, title: str, rounds: int, done: int) -> None:
        """An arm begins, or continues after `done` rounds."""
        ...


class Run:
    """One run of one scenario in one folder.

    Args:
        scenario: what to run.
        source: the table.
        folder: for everything that is written.
        progress: told how far the run is.
        cache: folder for activations that several runs on the same records share, and that stays; default: this run's.
        ray_address: of a cluster for the engine `ray`; where a run computes is no part of what it is.

    Raises:
        SettingsError: an address for another engine.
    """

    def __init__(
        self,
        scenario: Scenario,
        source: Path,
        folder: Path,
        progress: Progress,
        *,
        cache: Path | None = None,
        ray_address: str | None = None,
    ) -> None:
        if ray_address is not None and scenario.simulation.engine != "ray":
            raise SettingsError("Expected no --ray-address for the local engine, got one.", hint="--engine ray")
        self._ray_address = ray_address
        self.scenario, self.source, self.folder, self.progress = scenario, source, folder, progress
        self.cache = cache
        self.study = scenario.as_study()
        self.timing: dict[str, float] = {}
        """Seconds by phase, over every start of this run."""

    def open(self, *, resume: bool) -> None:
        """Claim the folder.

        Raises:
            SettingsError: it holds a run and `resume` was not asked for, or a run of another scenario.
        """
        declared = self.scenario.model_dump_json(indent=1, exclude={"performance"}).encode()
        kept = self.folder / "scenario.json"
        if kept.exists() and not resume:
            raise SettingsError(
                f"Expected a new folder, {self.folder} holds a run.", hint="--resume, or another --out."
            )
        changed = _changes(json.loads(kept.read_bytes()), json.loads(declared)) if kept.exists() else []
        if changed:
            raise SettingsError(
                f"Expected the scenario that {self.folder} was started with, got a changed one: {'; '.join(changed)}.",
                hint="Choose another --out, or undo the change.",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, declared)
        if (self.folder / "timing.json").exists():
            self.timing = json.loads((self.folder / "timing.json").read_text())

    def execute(self) -> Result:
        """Run everything that is not done yet; returns the result after writing it."""
        if (self.folder / "result.json").exists():
            return read_result(self.folder / "result.json")
        prepared, arms = self._prepare()
        for arm in arms:
            write_arm(arm, self.folder)
        engine = self._engine()
        try:
            self._build_caches(engine, arms, prepared)
            results, states = self._run_arms(engine, arms, prepared)
        finally:
            engine.close()
        with self._timed("export"):
            export(self.study, states["federated"].adapter, self.folder / "adapter")
        result = summary(self.scenario, prepared, results, states["federated"], self.timing)
        write_result(self.folder / "result.json", result)
        if self.cache is None:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return result

    def _prepare(self) -> tuple[Prepared, list[Arm]]:
        self.progress.phase("prepare")
        folder = self.folder / "prepared"
        if (folder / "warnings.json").exists():
            prepared = reopen(folder)
            return prepared, trained_arms(self.scenario, prepared.sites)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._timed("prepare"):
                prepared = prepare(self.scenario, self.source, folder)
                return prepared, trained_arms(self.scenario, prepared.sites)
        except FedVaultError:
            self._give_back()
            raise

    def _give_back(self) -> None:
        """Nothing was trained: leave the folder free for the mended scenario."""
        shutil.rmtree(self.folder / "prepared")
        for name in ("scenario.json", "timing.json"):
            (self.folder / name).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _engine(self) -> Engine:
        simulation, performance = self.scenario.simulation, self.scenario.performance
        # sites that share a GPU share one process, and so one copy of the base model for each arm
        alone = not simulation.processes and device_for(performance.device).type == "cuda"
        processes = 1 if alone else simulation.processes
        if simulation.engine == "ray":
            from simulations.engines.ray import RayEngine

            return RayEngine(
                self.folder.resolve(), processes=processes, threads=performance.threads, address=self._ray_address
            )
        return LocalEngine(self.folder.resolve(), processes=processes, threads=performance.threads)

    def _build_caches(self, engine: Engine, arms: list[Arm], prepared: Prepared) -> None:
        if not self.scenario.performance.activation_cache:
            return
        folder = self.folder / "cache"
        if self.cache is not None:
            self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (folder.is_symlink() or folder.exists()):
                folder.symlink_to(self.cache.resolve())
        folder.mkdir(mode=0o700, exist_ok=True)
        # of many sites, a cohort may never meet most: theirs are computed when they are asked for the first time
        asked = () if self.study.federation.cohort else sorted(prepared.sites, key=lambda site: -site.train)
        groups, step = evaluated_together(prepared), self.progress.step
        # the deepest cut is built from the others' activations, so the study's own cache comes first
        names = [name for name in ("federated", "head-federated") if any(arm.name == name for arm in arms)]
        self.progress.phase("frozen layers", len(names) * (len(asked) + len(groups)))
        with self._timed("cache"):
            for name in names:
                engine.map(worker.build_training_cache, [(name, site.index) for site in asked], done=step)
                engine.map(worker.build_evaluation_cache, [(name, group) for group in groups], done=step)

    def _run_arms(
        self, engine: Engine, arms: list[Arm], prepared: Prepared
    ) -> tuple[dict[str, ArmResult], dict[str, State]]:
        results: dict[str, ArmResult] = {}
        states: dict[str, State] = {}
        wanted = self.scenario.simulation.arms
        if "majority" in wanted:
            constant = self._constant(prepared)
            if constant is not None:
                results["majority"] = constant
        if "untrained-head" in wanted:
            results["untrained-head"] = self._untrained(engine, prepared)
        for arm in arms:
            with self._timed(arm.name):
                states[arm.name] = self._train(engine, arm, prepared)
            results[arm.name] = trained(arm, prepared, states[arm.name])
        return results, states

    def _train(self, engine: Engine, arm: Arm, prepared: Prepared) -> State:
        rounds = arm.study.federation.rounds
        layout, done = layout_of(arm.study), list[State]()

        def evaluate(number: int, adapter: Vector) -> dict[str, Any]:
            every = self.scenario.simulation.evaluate_every if arm.name == "federated" else rounds
            if number != rounds and (number == 0 or number % every):
                return {}
            return self._evaluate(engine, arm.name, adapter, prepared).model_dump()

        folder = arm_folder(self.folder, arm.name) / "checkpoints"
        app = build_server_app(
            arm.study,
            arm.name,
            folder,
            initial=initial_adapter(arm.study),
            on_done=done.append,
            largest_norm=self._bound(arm, layout),
            evaluate=evaluate,
            observer=self.progress,
        )
        kept = Checkpoints(folder).latest(study_sha256=arm.study.sha256, study_run=arm.name)
        self.progress.arm(arm.title, rounds, kept.round if kept else 0)
        sizes = {site.index: site.train for site in prepared.sites}
        engine.serve(app, [sum(sizes.values())] if arm.pooled else [sizes[index] for index in arm.site_indices])
        if not done or not any(record["outcome"] == "aggregated" for record in done[0].records):
            raise RunError(
                f"Expected arm {arm.name!r} to aggregate at least one round, got none.",
                hint=f"See the records in {folder}.",
            )
        return done[0]

    @staticmethod
    def _bound(arm: Arm, layout: Layout) -> Callable[[int], float]:
        if not arm.protected or arm.recipe != "own":  # the bound is that of our own steps
            return lambda _number: float("inf")
        return lambda number: norm_bound(arm.study, number, layout)

    def _evaluate(self, engine: Engine, arm: str, adapter: Vector, prepared: Prepared) -> Quality:
        calls = [(arm, group, adapter) for group in evaluated_together(prepared)]
        found: list[list[worker.Seen]] = engine.map(worker.evaluate_sites, calls)
        return quality(self.study, [*chain.from_iterable(found)])

    def _constant(self, prepared: Prepared) -> ArmResult | None:
        kind = task_kind(self.study.task)
        train = [load(prepared.train_path(site)) for site in prepared.sites]
        held_out = [load(prepared.holdout_path(site)) for site in prepared.sites]
        evidence = kind.constant(train, joined(held_out))
        if evidence is None:
            return None
        left = iter(evidence)
        found = [
            worker.Seen(site.name, [*islice(left, int(part.usable.sum()))])
            for site, part in zip(prepared.sites, held_out, strict=True)
        ]
        title = "majority class" if getattr(self.study.task, "labels", ()) else "one answer for all"
        return untrained(title, quality(self.study, found), 0.0)

    def _untrained(self, engine: Engine, prepared: Prepared) -> ArmResult:
        """The base model with a random head, or as it is if the task needs no head."""
        started, generator = time.monotonic(), np.random.default_rng(self.scenario.simulation.seed)
        start, parts = initial_adapter(self.study), list[Vector]()
        for name, shape in layout_of(self.study).tensors:
            size, done = math.prod(shape), sum(len(part) for part in parts)
            random = name.startswith("head.") and name.endswith("weight") and not is_measured(name)
            drawn = generator.standard_normal(size).astype(np.float32)
            parts.append(drawn if random else start[done : done + size])
        has_head = any(name.startswith("head.") for name, _ in layout_of(self.study).tensors)
        found = self._evaluate(engine, "federated", np.concatenate(parts), prepared)
        return untrained("untrained head" if has_head else "base model", found, time.monotonic() - started)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.timing[phase] = self.timing.get(phase, 0.0) + time.monotonic() - started
            write_atomically(self.folder / "timing.json", json.dumps(self.timing, indent=1).encode())


def _changes(before: Any, now: Any, path: str = "") -> list[str]:
    """What differs between two declarations, by key. The number of workers may: it changes no result."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [c for key in keys for c in _changes(before.get(key), now.get(key), f"{path}.{key}" if path else key)]
    return [] if before == now or path == "simulation.processes" else [f"{path} was {before!r} and is {now!r}"]


def evaluated_together(prepared: Prepared) -> list[tuple[int, ...]]:
    """Indices of sites, the largest first, small ones in groups: thousands of sites are not as many batches."""
    groups, group, held_out = list[tuple[int, ...]](), list[int](), 0
    for site in sorted(prepared.sites, key=lambda site: -site.holdout):
        group, held_out = [*group, site.index], held_out + site.holdout
        if held_out >= EVALUATED_TOGETHER:
            groups.append(tuple(group))
            group, held_out = [], 0
    return [*groups, tuple(group)] if group else groups
