"""A result as tables for a terminal."""

from rich.console import Console
from rich.table import Table

from simulations.result import ArmResult, Result

SHOWN_SITES = 6


def render(result: Result, console: Console) -> None:
    """Print what was compared, what it cost and what it took."""
    console.print(arms_table(result))
    console.print(privacy_table(result))
    console.print(cost_table(result))
    for warning in result.warnings:
        console.print(f"[yellow]note:[/] {warning}", highlight=False)


def arms_table(result: Result) -> Table:
    """Every arm: size, steps, cost, accuracy overall, per site and of the worst site."""
    sites = list(result.final.per_site)[:SHOWN_SITES]
    table = Table(title="Accuracy on held-out records", title_justify="left")
    table.add_column("arm")
    for name in ("rows", "q", "steps", "s", "ε", "all"):
        table.add_column(name, justify="right")
    for site in [*sites, "worst site"]:
        table.add_column(site, justify="right")
    for name, arm in result.arms.items():
        style = "bold" if name == "federated" else "" if arm.private else "red"
        table.add_row(*_arm_cells(arm, sites), style=style)
    return table


def privacy_table(result: Result) -> Table:
    """What every site spent, and how that is counted."""
    first = next(iter(result.privacy.values()))
    table = Table(
        title=f"Privacy spent: unit {first.unit}, {first.adjacency}, {first.sampling} sampling, {first.clipping} clip",
        title_justify="left",
    )
    table.add_column("site")
    for name in ("ε (RDP, the guarantee)", "ε (PRV)", "δ", "σ", "q", "steps", "declared size"):
        table.add_column(name, justify="right")
    for site, spent in list(result.privacy.items())[:20]:
        prv = "-" if spent.epsilon_prv is None else f"{spent.epsilon_prv:.3f}"
        table.add_row(
            site,
            f"{spent.epsilon_rdp:.3f}",
            prv,
            f"{spent.delta:g}",
            f"{spent.noise_multiplier:g}",
            f"{spent.sampling_rate:g}",
            str(spent.steps),
            str(spent.declared_size),
        )
    return table


def cost_table(result: Result) -> Table:
    """Bytes per node and round, seconds by phase."""
    table = Table(title="What it took", title_justify="left", show_header=False)
    size = result.bytes
    table.add_row("up / down per node and round", f"{_kib(size.up_per_node_round)} / {_kib(size.down_per_node_round)}")
    table.add_row("instead of all LoRA / the model", f"{_kib(size.full_lora_up)} / {_kib(size.full_model_up)}")
    table.add_row("seconds by phase", ", ".join(f"{phase} {s:.1f}" for phase, s in result.timing.items()))
    return table


def _arm_cells(arm: ArmResult, sites: list[str]) -> list[str]:
    quality = arm.quality
    return [
        arm.title,
        str(arm.rows) if arm.rows else "-",
        "-" if arm.sampling_rate is None else f"{arm.sampling_rate:g}",
        str(arm.steps) if arm.steps else "-",
        f"{arm.seconds:.0f}",
        "none" if not arm.private else "-" if arm.epsilon is None else f"{arm.epsilon:.2f}",
        f"{quality.accuracy:.3f}",
        *(f"{quality.per_site[site]:.3f}" for site in sites),
        f"{quality.worst_site.accuracy:.3f}",
    ]


def _kib(size: int) -> str:
    return f"{size / 1024:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"
