"""A whole sweep: every cell, what it shows, and its files; or settings on validation records and the best one after."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.errors import RunError, SettingsError
from simulations.results.result import Result
from simulations.run_folder import alone_in
from simulations.run_identity.seeds import SEED_KEYS, SHARED, RunSeeds, crossed, seeds_of
from simulations.run_identity.settings import deciding
from simulations.sweeps.cells import Axis, Cell, cells_of, named
from simulations.sweeps.execution import Job, Outcomes, execute
from simulations.sweeps.outcome import Sweep, summarise, write
from simulations.sweeps.statistics import Setting, best_setting

VALIDATION = "simulation.data.evaluate=validation"


@dataclass(frozen=True)
class Order:
    """What a sweep is to run."""

    file: Path
    changes: tuple[str, ...]
    axes: tuple[Axis, ...]
    folder: Path
    at_once: int = 1
    ray_address: str | None = None

    def jobs(self, folder: str, changes: tuple[str, ...] = (), cells: Sequence[Cell] | None = None) -> list[Job]:
        """Return the runs, in a folder within the sweep's."""
        chosen = cells_of(self.axes, self.changes) if cells is None else cells
        place, cache = self.folder / folder, self.folder / "cache"
        declared = (*self.changes, *changes)
        return [Job(cell, self.file, declared, place / cell.folder, cache, self.ray_address) for cell in chosen]


def carry_out(
    order: Order, *, choose: bool = False, done: Callable[[Cell, Result | str], None] = lambda _cell, _outcome: None
) -> Sweep:
    """Run a sweep and write its files.

    Args:
        order: what to run.
        choose: whether settings are compared on validation records, and only the best runs on the held-out ones.
        done: told of each run that ended.

    Raises:
        SettingsError: a combination is no valid scenario; nothing was run then.
        RunError: nothing can be chosen, since a run of each setting failed; or another process works in the folder.
    """
    if order.at_once < 1:
        raise SettingsError(f"Expected at least one run at once, got at_once={order.at_once}.")
    with alone_in(order.folder):
        if not choose:
            return _summarised(execute(order.jobs("cells"), at_once=order.at_once, done=done), order.folder)
        tried = execute(order.jobs("validation", (VALIDATION,)), at_once=order.at_once, done=done)
        return best_on_held_out(order, tried_settings(tried, order.folder / "validation"), done)


def tried_settings(tried: Outcomes, folder: Path) -> Sweep:
    """Summarise runs on validation records, and write what they show.

    Raises:
        RunError: nothing can be chosen, since every run failed.
    """
    trial = _summarised(tried, folder)
    if not trial.results:
        raise RunError(
            "Expected at least one run to choose by, all of them failed.", hint=next(iter(trial.errors.values()))
        )
    return trial


def best_on_held_out(order: Order, trial: Sweep, done: Callable[[Cell, Result | str], None]) -> Sweep:
    """Run the setting that was best on validation records on the held-out ones, and write what it shows.

    Raises:
        RunError: nothing can be chosen, since a run of each setting failed: fewer seeds are no fair comparison.
    """
    best = best_setting(trial.results, trial.errors)
    if best is None:
        raise RunError(
            "Expected a setting that finished at each of its seeds to choose, a run of all of them failed.",
            hint="The same command tries again what failed. " + next(iter(trial.errors.values())),
        )
    chosen = [cell for cell in trial.results if cell.setting == best]
    held_out = execute(order.jobs("cells", cells=chosen), at_once=order.at_once, done=done)
    made = replace(summarise(held_out, order.folder), cost=trial.cost, trial=trial)
    write(made, order.folder)
    return made


def compared(results: Sequence[Result]) -> Sweep:
    """Compare finished runs by the keys in which their scenarios differ.

    Raises:
        SettingsError: there are fewer than two, two are the same run, they measure different things, or their seeds are
            crossed.
    """
    if len(results) < 2:
        raise SettingsError(f"Expected at least two runs to compare, got {len(results)}.")
    measures = {(result.final.metric, result.evaluated_on) for result in results}
    if len(measures) > 1:
        listed = ", ".join(sorted(f"{metric} on {where} records" for metric, where in measures))
        raise SettingsError(f"Expected runs that measure one thing, got {listed}.")
    flat = [_flat(deciding(result.scenario)) for result in results]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if len({one.get(key) for one in flat}) > 1]
    cells = [
        Cell(
            tuple((key, one.get(key, "")) for key in keys if not key.startswith(SEED_KEYS)),
            tuple((key, one.get(key, "")) for key in keys if key.startswith(SEED_KEYS)),
        )
        for one in flat
    ]
    if len(set(cells)) < len(cells):
        raise SettingsError("Expected runs that differ in a setting or a seed, got the same one twice.")
    _check_independent(cells, results)
    return summarise(Outcomes(zip(cells, results, strict=True)))


def _check_independent(cells: Sequence[Cell], results: Sequence[Result]) -> None:
    by_setting = dict[Setting, list[RunSeeds]]()
    for cell, result in zip(cells, results, strict=True):
        by_setting.setdefault(cell.setting, []).append(seeds_of(result.scenario))
    shared = next((setting for setting, seeds in by_setting.items() if crossed(seeds)), None)
    if shared is not None:
        listed = "; ".join(one.in_words for one in by_setting[shared])
        raise SettingsError(
            f"Expected runs whose seeds all differ, got {listed} at {named(shared)}: {SHARED}.",
            hint="Compare those that have one of these seeds in common.",
        )


def _summarised(outcomes: Outcomes, folder: Path) -> Sweep:
    made = summarise(outcomes, folder)
    write(made, folder)
    return made


def _flat(scenario: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Write every value of a scenario by its whole key."""
    flat = dict[str, str]()
    for name, value in scenario.items():
        key = f"{path}.{name}" if path else name
        flat |= _flat(value, key) if isinstance(value, Mapping) else {key: json.dumps(value)}
    return flat
