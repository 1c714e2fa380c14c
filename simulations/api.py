"""The Python interface for researchers: load a scenario, run it, and have its figures as pandas frames.

    from simulations.api import load_scenario, run

    result = run(load_scenario("simulations/scenarios/health-tweets.toml"))
    result.arms

These names are stable: what is renamed or goes is in the changelog, and the old name works for one release more.
`fedvault-sim` does the same things in a terminal, in the same folders.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulations.experiment.scenario import Scenario, data_path, load
from simulations.sweeps.changes import Changes, as_options, values_by_key

if TYPE_CHECKING:
    import pandas as pd
    from peft import PeftModel

    from shared.evidence.audit_result import AuditResult
    from shared.explanations.explain import Explanation
    from simulations.progress import Progress
    from simulations.results.pictures import Svg
    from simulations.results.result import Result as Figures
    from simulations.sweeps.outcome import Sweep

__all__ = [
    "LoadedScenario", "Plan", "Result", "audit", "compare", "explain", "load_scenario", "open_result", "plan", "run",
    "sweep",
]  # fmt: skip


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario that was read and is valid, with the table that it names."""

    file: Path
    changes: tuple[str, ...]
    """As `--set` takes them."""
    declared: Scenario = field(repr=False)
    """Every value, defaults filled in."""
    source: Path
    """The table."""


@dataclass(frozen=True)
class Result:
    """A finished run. Frames are made anew at each call: change them as you like."""

    figures: "Figures"
    """Everything in `result.json`, by the names that RESULT.md explains."""
    folder: Path

    def __repr__(self) -> str:
        from simulations.results.wording import in_one_line

        return f"Result({in_one_line(self.figures)}; {self.folder})"

    @property
    def rounds(self) -> "pd.DataFrame":
        """The study's own arm by round: outcome, replies, seconds and quality."""
        from simulations.results.frames import rounds_frame

        return rounds_frame(self.figures)

    @property
    def sites(self) -> "pd.DataFrame":
        """Sites: their records by use, and the main metric of every arm there."""
        from simulations.results.frames import sites_frame

        return sites_frame(self.figures)

    @property
    def arms(self) -> "pd.DataFrame":
        """Arms: size, cost and quality, and `federated` minus each other one with its interval."""
        from simulations.results.frames import arms_frame

        return arms_frame(self.figures)

    @property
    def privacy(self) -> "pd.DataFrame":
        """Privacy that each site has spent. Noise is seeded here: nothing that was released is private."""
        from simulations.results.frames import privacy_frame

        return privacy_frame(self.figures)

    @property
    def metrics(self) -> "pd.DataFrame":
        """Every metric of every arm's last adapter at every site, one value a row."""
        from simulations.results.frames import metrics_frame

        return metrics_frame(self.figures)

    @property
    def curves(self) -> "pd.DataFrame":
        """Arms round by round, one value a row; of all arms with `simulation.curves = "all"`."""
        from simulations.results.frames import curves_frame

        return curves_frame(self.figures)

    @property
    def update_norms(self) -> "pd.DataFrame":
        """Length of each site's update by round; empty without `simulation.update_norms`."""
        from simulations.results.frames import norms_frame

        return norms_frame(self.figures)

    @property
    def predictions(self) -> "pd.DataFrame":
        """Each arm's last answer to each held-out record, beside the truth.

        Raises:
            SettingsError: the run kept none.
        """
        from simulations.results.stored_tables import read_predictions

        return read_predictions(self.folder / "tables")

    @cached_property
    def pictures(self) -> "dict[str, Svg]":
        """Drawings as SVG: `arms`, `differences` and `rounds`, where there is more than one of each."""
        from simulations.results.pictures import pictures_of

        return pictures_of(self.figures)

    def adapter(self) -> "PeftModel":
        """Load the base model with the trained adapter in PEFT's own format; a head is not part of it.

        Raises:
            SettingsError: the study trained a head alone, or its adapter was not exported.
        """
        from server.export.adapter import as_peft

        return as_peft(self.folder / "adapter")

    def predict(self, rows: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Return the finished model's answer to each row, as in `predict({"text": ["What a day!"]})`.

        Raises:
            SettingsError: columns of the task are missing, or the adapter was not exported.
        """
        from shared.adapted_model.finished import load_finished

        return load_finished(self.folder / "adapter").predict(rows)


@dataclass(frozen=True)
class Plan:
    """A forecast of a study: what it costs each node, and whether it can learn. Nothing is trained for it."""

    verdict: str
    suggestions: tuple[str, ...]
    """Changes that would help it to learn."""
    nodes: "pd.DataFrame"
    figures: dict[str, Any]
    """Everything that `fedvault-sim plan --json` prints."""


def load_scenario(file: str | Path, changes: Changes = ()) -> LoadedScenario:
    """Read a scenario and apply changes to it, as `fedvault-sim run FILE --set KEY=VALUE` does.

    Raises:
        SettingsError: the file or a change is wrong, with one line for each mistake, or the table is not there.
    """
    path, wanted = Path(file), as_options(changes)
    declared = load(path, wanted)
    return LoadedScenario(path, wanted, declared, data_path(declared, path))


def run(
    scenario: LoadedScenario | str | Path,
    changes: Changes = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: "Progress | None" = None,
    ray_address: str | None = None,
) -> Result:
    """Run every arm of a scenario and write its folder: result.json, report.html and the adapter.

    Args:
        scenario: loaded, or the path of its file.
        changes: to be applied to it.
        out: result folder; default: runs/ and the name of the file.
        resume: whether to go on with the run in that folder; a finished one is read.
        progress: is told how far the run is; default: nobody is.
        ray_address: of a Ray cluster that is running, for the engine `ray`.

    Raises:
        FedVaultError: a mistake in settings or data, or a run that cannot continue.
    """
    scenario = _loaded(scenario, changes)
    from simulations.quiet import quiet_libraries

    quiet_libraries()
    from shared.logs import without_stopping
    from simulations.progress import SilentProgress
    from simulations.results.report import write_report
    from simulations.run import Run

    folder = _folder(scenario, out)
    running = Run(scenario.declared, scenario.source, folder, progress or SilentProgress(), ray_address=ray_address)
    running.open(resume=resume)
    figures = running.execute()
    report = folder / "report.html"
    with without_stopping(str(report)):
        write_report(figures, report)
    return Result(figures, folder)


def sweep(
    scenario: LoadedScenario | str | Path,
    over: Mapping[str, Iterable[Any]],
    *,
    out: str | Path | None = None,
    at_once: int = 1,
    choose: bool = False,
    ray_address: str | None = None,
) -> "Sweep":
    """Run a scenario at every combination of values; what is done in the folder already is read, not run again.

    Args:
        scenario: loaded, or the path of its file.
        over: values by key, as in {"privacy.epsilon": [1, 3, 8], "simulation.seed": range(1, 6)}.
        out: folder; default: runs/ and the name of the file with `-sweep`.
        at_once: runs at a time, on an equal share of the cores each.
        choose: whether settings are compared on validation records, and only the best runs on the held-out ones.
        ray_address: of a Ray cluster that is running, for the engine `ray`.

    Raises:
        SettingsError: a combination is no valid scenario, or `over` has another shape; nothing was run then.
    """
    scenario = _loaded(scenario)
    from simulations.quiet import quiet_libraries

    quiet_libraries()
    from simulations.sweeps.cells import axis_of
    from simulations.sweeps.order import Order, carry_out

    folder = _folder(scenario, out, "-sweep")
    axes = tuple(axis_of(key, values) for key, values in values_by_key(over).items())
    order = Order(scenario.file, scenario.changes, axes, folder, at_once=at_once, ray_address=ray_address)
    return carry_out(order, choose=choose)


def compare(results: "Iterable[Result | Figures] | Mapping[Any, Result | Figures]") -> "Sweep":
    """Compare finished runs: the settings that they differ in, with means over runs that differ in their seeds alone.

    Args:
        results: as `run` and `open_result` return them, or the `results` of a sweep, as they are or some of them.

    Raises:
        SettingsError: there are fewer than two, two are the same run, or they measure different things.
    """
    from simulations.sweeps.order import compared

    runs = results.values() if isinstance(results, Mapping) else results
    return compared([one.figures if isinstance(one, Result) else one for one in runs])


def open_result(folder: str | Path) -> Result:
    """Read a finished run.

    Raises:
        SettingsError: the folder holds none.
    """
    from simulations.results.result import read_result

    return Result(read_result(Path(folder) / "result.json"), Path(folder))


def plan(file: str | Path | LoadedScenario, changes: Changes = (), *, sizes: Sequence[int] | None = None) -> Plan:
    """Forecast a study or scenario before anything is trained, as `fedvault-sim plan --no-timing` does.

    Args:
        file: a study or scenario.
        changes: to be applied to it.
        sizes: declared size of every node; default: of a scenario's sites, from its data.

    Raises:
        SettingsError: the file is neither, or sizes are missing for a bare study.
        DataError: the scenario's table cannot be read.
    """
    from simulations.quiet import quiet_libraries

    quiet_libraries()
    import pandas as pd

    from server.forecast.text import as_json
    from simulations.forecast import plan_file

    path, options = _with_changes(file, changes)
    typed = None if sizes is None else ",".join(map(str, sizes))
    of_file = plan_file(path, typed, options, epsilon_limit=None, spent_steps=0)
    figures = as_json(of_file.forecast, of_file.suggestions)
    return Plan(figures["verdict"], tuple(of_file.suggestions), pd.DataFrame(figures["nodes"]), figures)


def audit(
    scenario: LoadedScenario | str | Path,
    changes: Changes = (),
    *,
    out: str | Path | None = None,
    canaries: int = 5000,
    adapters: int = 8,
) -> "AuditResult":
    """Attack a scenario's training, as `fedvault-sim audit FILE` does, and write audit.json; minutes.

    Args:
        scenario: loaded, or the path of its file.
        changes: to be applied to it.
        out: folder; a finished run there gets the outcome into its result too.
        canaries: planted records; more of them see more.
        adapters: shadow adapters of each kind.

    Raises:
        SettingsError: the folder holds a run of another study.
    """
    scenario = _loaded(scenario, changes)
    from simulations.quiet import quiet_libraries

    quiet_libraries()
    from simulations.audit.command import audited_in

    folder = _folder(scenario, out)
    made, _ = audited_in(scenario.declared, scenario.source, folder, canaries=canaries, adapters=adapters)
    return made


def explain(result: Result, rows: Mapping[str, Sequence[Any]]) -> "list[Explanation]":
    """Show what the finished model's answer to each row rests on, as `fedvault-sim explain` does.

    Args:
        result: of a finished run.
        rows: as `Result.predict` takes them.

    Raises:
        SettingsError: the task is none that is explained, captum is missing, or columns of the task are.
    """
    from shared.adapted_model.finished import load_finished
    from shared.explanations.command import require_captum
    from shared.explanations.explain import explain as explained

    require_captum()
    return explained(load_finished(result.folder / "adapter"), rows)


def _loaded(scenario: LoadedScenario | str | Path, changes: Changes = ()) -> LoadedScenario:
    if isinstance(scenario, LoadedScenario) and not changes:
        return scenario
    return load_scenario(*_with_changes(scenario, changes))


def _with_changes(file: LoadedScenario | str | Path, changes: Changes) -> tuple[Path, tuple[str, ...]]:
    if isinstance(file, LoadedScenario):
        return file.file, (*file.changes, *as_options(changes))
    return Path(file), as_options(changes)


def _folder(scenario: LoadedScenario, out: str | Path | None, suffix: str = "") -> Path:
    return Path("runs") / f"{scenario.file.stem}{suffix}" if out is None else Path(out)
