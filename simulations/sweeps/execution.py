"""Run the cells of a sweep, each in a folder of its own: what is done is read, what was cut continues.

Cells run one after the other, each on all cores, or several at once that share the cores. How many there are at once
changes no result. All of them share one cache of frozen activations.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from shared.errors import FedVaultError, RunError, SettingsError
from simulations.engines.local import WorkerContext
from simulations.engines.worker import end_with_parent
from simulations.experiment.scenario import Scenario, data_path, load
from simulations.progress import SilentProgress
from simulations.quiet import quiet_libraries
from simulations.results.result import Result
from simulations.run import Run
from simulations.sweeps.cells import Cell


@dataclass(frozen=True)
class Job:
    """One cell with all that its run needs."""

    cell: Cell
    file: Path
    changes: tuple[str, ...]
    """Of the sweep; the cell's own come after them."""
    folder: Path
    cache: Path
    ray_address: str | None = None

    def scenario(self) -> Scenario:
        """Read the scenario as this cell changes it.

        Raises:
            SettingsError: it is none.
        """
        return load(self.file, (*self.changes, *self.cell.changes))


class Outcomes(dict[Cell, Result | str]):
    """What became of each cell: its result, or the error that ended it."""

    @property
    def results(self) -> dict[Cell, Result]:
        """Return those that finished, in the order of the sweep."""
        return {cell: one for cell, one in self.items() if isinstance(one, Result)}

    @property
    def errors(self) -> dict[Cell, str]:
        """Return the errors of the others."""
        return {cell: one for cell, one in self.items() if isinstance(one, str)}


def execute(
    jobs: Sequence[Job], *, at_once: int = 1, done: Callable[[Cell, Result | str], None] = lambda _cell, _outcome: None
) -> Outcomes:
    """Run every cell that is not done yet; one that fails is named, and the others go on.

    Args:
        jobs: the cells; all are read and checked before the first one runs.
        at_once: how many run at a time, on an equal share of the cores each.
        done: told of each cell that ended.

    Raises:
        SettingsError: a cell's values make no valid scenario, or its data are not there.
    """
    check(jobs)
    made = dict[Cell, Result | str]()
    for cell, outcome in _side_by_side(jobs, at_once) if at_once > 1 else ((job.cell, attempt(job)) for job in jobs):
        made[cell] = outcome
        done(cell, outcome)
    for cache in {job.cache for job in jobs}:
        shutil.rmtree(cache, ignore_errors=True)
    return Outcomes({job.cell: made[job.cell] for job in jobs})


def check(jobs: Sequence[Job]) -> None:
    """Read every cell's scenario.

    Raises:
        SettingsError: a cell's values make no valid scenario, or its data are not there.
    """
    for job in jobs:
        try:
            data_path(job.scenario(), job.file)
        except FedVaultError as error:
            raise SettingsError(f"{', '.join(job.cell.changes)}: {error}", hint=error.hint) from None


def run_job(job: Job, processes: int | None = None) -> Result:
    """Run a cell, or go on with it, or read its result.

    Args:
        job: the cell.
        processes: its workers; default: as the scenario says.
    """
    scenario = job.scenario()
    if processes is not None:
        fewer = scenario.simulation.model_copy(update={"processes": processes})
        scenario = scenario.model_copy(update={"simulation": fewer})
    source = data_path(scenario, job.file)
    run = Run(scenario, source, job.folder, SilentProgress(), cache=job.cache, ray_address=job.ray_address)
    run.open(resume=True)
    return run.execute()


def attempt(job: Job, processes: int | None = None) -> Result | str:
    """Run a cell, or go on with it, or read its result; returns the error in words if it fails."""
    try:
        return run_job(job, processes)
    except FedVaultError as error:
        stop = "" if not error.hint or str(error).endswith((".", "!", "?")) else "."
        return f"{error}{stop} {error.hint}".rstrip()


def _side_by_side(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Cell, Result | str]]:
    cores = len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(at_once, WorkerContext(), _start)
    try:
        running = {pool.submit(attempt, job, max(1, cores // at_once)): job for job in jobs}
        for future in as_completed(running):
            yield running[future].cell, future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "Expected cells that live to the end, got one that was killed: mostly for want of memory.",
            hint="The same command goes on with what is done, also with a smaller --at-once.",
        ) from error
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=end_with_parent, daemon=True).start()
    quiet_libraries()
