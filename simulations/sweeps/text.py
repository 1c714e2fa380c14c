"""Print a sweep as tables for a terminal."""

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.evidence.texts import Texts
from shared.evidence.wording import seeds_in_words
from simulations.results.metric_names import heading, shown, signed
from simulations.results.result import Result
from simulations.sweeps.cells import Cell, named
from simulations.sweeps.outcome import Sweep
from simulations.sweeps.statistics import Compared, varied

COVERED = (
    "Intervals of 95 % by Student's t over seeds, which differ in {sources} of these data; those of shares end at 0 "
    "and 1. p by paired t-tests of the same seed."
)
ONE_SEED = "One seed each: no interval and no test. Add --over simulation.seed=1..5."


def announcer(console: Console, count: int) -> Callable[[Cell, Result | str], None]:
    """Return what prints a line for each run that ended, of so many in all."""
    ended = list[Cell]()

    def say(cell: Cell, outcome: Result | str) -> None:
        ended.append(cell)
        figure = "failed" if isinstance(outcome, str) else shown(outcome.final.value)
        line = f"{len(ended)} of {max(count, len(ended))}: {' '.join(cell.changes)}: {figure}"
        console.print(line, style="dim", highlight=False, markup=False)

    return say


def render(sweep: Sweep, console: Console) -> None:
    """Print every table of a sweep, and what a reader must know beside them."""
    if sweep.trial is not None:
        render_tables(sweep.trial, console)
        chosen = named(next(iter(sweep.results), next(iter(sweep.trial.results))).setting)
        among = ", among the settings that finished at each seed" if sweep.trial.errors else ""
        console.print(f"Chosen by these validation records{among}: {escape(chosen)}. It then ran on the held-out ones:")
    render_tables(sweep, console)
    if sweep.results:
        several = any(row.seeds > 1 for row in sweep.rows)
        covered = COVERED.format(sources=seeds_in_words(varied(sweep.results), Texts("en")))
        console.print(covered if several else ONE_SEED, highlight=False)
        first = next(iter(sweep.results.values()))
        if first.evaluated_on == "held-out" and len({row.setting for row in sweep.rows}) > 1:
            console.print("Held-out records: do not choose a setting by this table; --choose does it on others.")
        if sweep.cost is not None:
            console.print(sweep.cost.sentence(), highlight=False)
        console.print("[yellow]Simulation: the noise was seeded to be repeatable; what was released is not private.[/]")


def render_tables(sweep: Sweep, console: Console) -> None:
    """Print the arms at every setting, the settings beside the first, and what failed."""
    if sweep.results:
        console.print(_arms(sweep))
    if sweep.against:
        console.print(_against(sweep))
    if sweep.first_failed:
        first = escape(named(sweep.first))
        console.print(f"Every run of the first setting, {first}, failed: no setting is set against it.")
    if sweep.evaluations:
        console.print(_evaluations(sweep))
    for cell, error in sweep.errors.items():
        console.print(f"[red]failed:[/] {escape(' '.join(cell.changes))}: {escape(error)}", highlight=False)


def _arms(sweep: Sweep) -> Table:
    first = next(iter(sweep.results.values()))
    title = heading(
        first.final.metric, f"on {first.evaluated_on} records", higher_is_better=first.final.higher_is_better
    )
    table = Table(title=escape(title), box=SIMPLE_HEAD, title_justify="left")
    for name in ("setting", "arm", "seeds", "mean", "95 %", "worst site", "federated is better by", "p"):
        table.add_column(name, justify="left" if name in ("setting", "arm") else "right")
    before = None
    for row in sweep.rows:
        low, high = row.quality.low, row.quality.high
        ends = "-" if low is None or high is None else f"{shown(low)} – {shown(high)}"
        setting = "" if row.setting == before else named(row.setting)
        cells = [setting, row.title, str(row.seeds), shown(row.quality.value), ends, shown(row.worst)]
        table.add_row(*map(escape, cells), *_compared(row.ahead), style="bold" if row.ahead is None else None)
        before = row.setting
    return table


def _against(sweep: Sweep) -> Table:
    title = f"Federated, minus the setting {named(sweep.against[0].first)}, positive where it is better"
    table = Table(title=escape(title), box=SIMPLE_HEAD, title_justify="left")
    for name in ("setting", "pairs", "difference", "p", "p (Holm)"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for one in sweep.against:
        corrected = "-" if one.holm is None else f"{one.holm:.2g}"
        table.add_row(escape(named(one.setting)), str(one.compared.seeds), *_compared(one.compared), corrected)
    return table


def _evaluations(sweep: Sweep) -> Table:
    """Show what holds for all sites, the worst one, and gaps; sweep.json has the rest."""
    table = Table(title="Private evaluations: counts with noise, as nodes release them", box=SIMPLE_HEAD)
    for name in ("setting", "of whom", "measure", "mean", "95 %"):
        table.add_column(name, justify="right" if name in ("mean", "95 %") else "left")
    for setting, one in sweep.evaluations:
        for estimate in one.estimates:
            if estimate.scope in ("all sites", "worst site", "gap"):
                whom = f"{estimate.scope} ({estimate.name})" if estimate.name else estimate.scope
                measure = f"{estimate.measure}, {estimate.label}" if estimate.label else estimate.measure
                low, high, value = estimate.low, estimate.high, estimate.value
                ends = "-" if low is None or high is None else f"{shown(low)} – {shown(high)}"
                written = "not shown" if value is None else shown(value)
                table.add_row(*map(escape, (named(setting), whom, measure, written, ends)))
    return table


def _compared(one: Compared | None) -> tuple[str, str]:
    if one is None:
        return "", ""
    interval = one.minus
    ends = (
        "" if interval.low is None or interval.high is None else f" ({signed(interval.low)} to {signed(interval.high)})"
    )
    return f"{signed(interval.value)}{ends}", "-" if one.p is None else f"{one.p:.2g}"
