"""Show a result as tables for a terminal, narrow enough for 80 columns."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.private_evaluation.estimates import Evaluated
from shared.private_evaluation.wording import LEGEND, choice_lines, headline, rows
from shared.study.sections import RECORD
from simulations.results.metric_names import heading, shown
from simulations.results.result import ArmResult, Result, SitePrivacy, evaluated_adapter
from simulations.results.wording import (
    covered,
    difference_cells,
    differences_title,
    evaluated_at,
    held_out,
    notes,
    records_of,
    spent_in_words,
    unit_of,
)

SHOWN_SITES = 4
SHOWN_ROWS = 20


def render(result: Result, console: Console) -> None:
    """Print every table of a result, and what a reader must know beside them."""
    console.print(arms_table(result))
    if result.differences:
        console.print(differences_table(result))
        console.print(covered(result))
    for note in notes(result):
        console.print(escape(note), highlight=False)
    if result.differences or notes(result):
        console.print()
    if (evaluated := evaluated_adapter(result)) is not None:
        console.print(escape(headline(evaluated)), highlight=False)
        console.print(evaluation_table(evaluated))
        console.print(LEGEND, highlight=False)
        for line in choice_lines(result.choice, len(result.rounds)) if result.choice else ():
            console.print(escape(line), highlight=False)
        console.print()
    for table in (sites_table(result), privacy_table(result), cost_table(result)):
        console.print(table)
    if any(arm.steps and not arm.private for arm in result.arms.values()):
        console.print("[red]WITHOUT PRIVACY is a reference: nothing protects the records of that arm.[/]")
    if any(spent.seeded_noise for spent in result.privacy.values()):
        console.print("[yellow]Simulation: the noise was seeded to be repeatable; what was released is not private.[/]")
    for warning in result.warnings:
        console.print(f"[yellow]note:[/] {escape(warning)}", highlight=False)


def evaluation_table(evaluated: Evaluated) -> Table:
    """Tabulate the estimates of a private evaluation."""
    cells = rows(evaluated.estimates)
    table = _table("Private evaluation", *cells[0])
    for row in cells[:SHOWN_ROWS]:
        table.add_row(*map(escape, row.values()))
    if len(cells) > SHOWN_ROWS:
        table.add_row(f"{len(cells) - SHOWN_ROWS} more: --json")
    return table


def arms_table(result: Result) -> Table:
    """Tabulate every arm: size, steps, cost, main metric overall and of the worst site."""
    final = result.final
    title = heading(final.metric, f"on {held_out(result)}", higher_is_better=final.higher_is_better)
    unit = unit_of(result)
    counted = ["rows"] if unit == RECORD else ["rows", escape(f"{unit}s")]
    table = _table(escape(title), "arm", *counted, "steps", "s", "ε", "all", "worst site")
    for name, arm in result.arms.items():
        first, rows, *others = _arm_cells(arm)
        counts = [rows] if unit == RECORD else [rows, str(arm.units or "-")]
        table.add_row(first, *counts, *others, style=_style(name, arm))
    return table


def differences_table(result: Result) -> Table:
    """Tabulate the study's own arm minus each other one, each with its interval."""
    table = _table(differences_title(result), "arm", "difference", "95 % interval")
    for name, cells in difference_cells(result).items():
        table.add_row(escape(result.arms[name].title), *cells, style=_style(name, result.arms[name]))
    return table


def sites_table(result: Result) -> Table:
    """Tabulate every arm's main metric by site, and held-out records."""
    sites = list(result.final.per_site)
    table = _table(escape(heading(result.final.metric, "by site")), "arm", *map(escape, sites[:SHOWN_SITES]))
    for name, arm in result.arms.items():
        values = [shown(arm.quality.per_site[site]) for site in sites[:SHOWN_SITES]]
        table.add_row(escape(arm.title), *values, style=_style(name, arm))
    counts = [evaluated_at(result, site) for site in sites[:SHOWN_SITES]]
    if any(counts):
        table.add_row(records_of(result), *counts, style="dim")
    if len(sites) > SHOWN_SITES:
        table.caption = f"{len(sites) - SHOWN_SITES} more sites are in result.json"
    return table


def privacy_table(result: Result) -> Table:
    """Tabulate what every site spent, and how that is counted."""
    first = next(iter(result.privacy.values()))
    title = f"Privacy spent: {first.unit}, {first.adjacency}, {first.sampling}, {first.clipping} clipping"
    header = ("site", "ε (RDP)", "ε (PRV)", "δ", "σ", "q", "steps", "declared")
    table = _table(title, *header, caption="the RDP figure is the guarantee")
    for site, spent in list(result.privacy.items())[:SHOWN_ROWS]:
        table.add_row(escape(site), *_privacy_cells(spent))
    return table


def cost_table(result: Result) -> Table:
    """Tabulate bytes per node and round, and seconds by phase."""
    table = Table(title="What it took", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    size = result.bytes
    table.add_row("up / down per node and round", f"{_kib(size.up_per_node_round)} / {_kib(size.down_per_node_round)}")
    by_wire = " / ".join(f"{wire} {_kib(bytes_up)}" for wire, bytes_up in size.up_by_wire.items())
    if by_wire:
        table.add_row("up by federation.wire", by_wire)
    full_lora = "–" if size.full_lora_up is None else _kib(size.full_lora_up)
    table.add_row("instead of all LoRA / the model", f"{full_lora} / {_kib(size.full_model_up)}")
    table.add_row("seconds by phase", ", ".join(f"{escape(phase)} {s:.1f}" for phase, s in result.timing.items()))
    return table


def _table(title: str, first: str, *others: str, caption: str | None = None) -> Table:
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left"
    )
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _style(name: str, arm: ArmResult) -> str:
    return "bold" if name == "federated" else "" if arm.private else "red"


def _arm_cells(arm: ArmResult) -> list[str]:
    quality = arm.quality
    return [
        escape(arm.title),
        str(arm.rows) if arm.rows else "-",
        str(arm.steps) if arm.steps else "-",
        f"{arm.seconds:.0f}",
        "none" if not arm.private else spent_in_words(arm),
        shown(quality.value),
        f"{escape(quality.worst_site.site)} {shown(quality.worst_site.value)}",
    ]


def _privacy_cells(spent: SitePrivacy) -> list[str]:
    return [
        f"{spent.epsilon_rdp:.3f}",
        "-" if spent.epsilon_prv is None else f"{spent.epsilon_prv:.3f}",
        f"{spent.delta:g}",
        f"{spent.noise_multiplier:g}",
        f"{spent.sampling_rate:g}",
        str(spent.steps),
        str(spent.declared_size),
    ]


def _kib(size: int) -> str:
    return f"{size / 1024:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"
