"""A forecast in words and tables, for a terminal of 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.forecast.values import NodeForecast, StudyForecast
from shared.command_line import print_table
from shared.privacy.in_words import in_words
from shared.privacy.signal_to_noise import LEARNS_LITTLE, LEARNS_NOTHING, Prospect

SHOWN_NODES, NAMED = 20, 5
UNEQUAL = 1.25
"""How many times as quiet the mean of the largest nodes must be for a warning about the others."""
BOUND = (
    "Ratios are the longest possible signal over the noise, from public numbers. Real signals are far shorter: of the\n"
    "head, 0.02 to 0.12 of that bound in single rounds of digits and of sentiment. The thresholds allow for it."
)


def as_json(forecast: StudyForecast, suggestions: Sequence[str]) -> dict[str, Any]:
    """Return the whole forecast as plain values, with suggestions and warnings."""
    return forecast.as_dict() | {
        "verdict": _outlook(forecast),
        "suggestions": list(suggestions),
        "warnings": warnings(forecast),
    }


def show(
    forecast: StudyForecast, suggestions: Sequence[str], beside: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Print the forecast: the verdict first, then what it rests on.

    Args:
        forecast: of the study.
        suggestions: changes that would help, from `suggest`.
        beside: more columns for nodes, by their names.
    """
    for line in [*verdict(forecast, suggestions), ""]:
        print(line)  # noqa: T201 - a command speaks
    print_table([{"": name, " ": value} for name, value in facts(forecast).items()])
    print()  # noqa: T201
    print_table([row | dict((beside or {}).get(row["node"], {})) for row in rows(forecast)])
    if len(forecast.nodes) > SHOWN_NODES:
        print(f"{len(forecast.nodes) - SHOWN_NODES} more nodes are in --json.")  # noqa: T201
    print(f"\n{BOUND}")  # noqa: T201


def verdict(forecast: StudyForecast, suggestions: Sequence[str]) -> list[str]:
    """Return what to expect and why, what would help, and what else is wrong."""
    lines = [_outlook(forecast)]
    if suggestions:
        lines += ["These would help, each enough by itself unless it says otherwise:", *(f"  {s}" for s in suggestions)]
    return [*lines, *warnings(forecast)]


def _outlook(forecast: StudyForecast) -> str:
    best = f"over the whole study the longest signal of the nodes' mean is {forecast.ratio:.2g} times its noise"
    return {
        Prospect.NOTHING: f"This will not learn: {best}, and below {LEARNS_NOTHING:g} nothing is learned.",
        Prospect.LITTLE: f"This will learn little: {best}, and below {LEARNS_LITTLE:g} much is lost.",
        Prospect.UNKNOWN: f"Only training shows whether this learns: {best}. An adapter alone has learned at 1.4.",
        Prospect.ENOUGH: f"Noise leaves room to learn: {best}. Whether the task can be learned, only training shows.",
    }[forecast.prospect]


def warnings(forecast: StudyForecast) -> list[str]:
    """Return what else would be spent for nothing, and what shared noise does not promise."""
    lines = [f"The nodes share one noise. {forecast.shared_noise}", _gain(forecast)] if forecast.shared_noise else []
    lines += [forecast.method] if forecast.method else []
    for part in forecast.parts:
        if forecast.prospect in (Prospect.LITTLE, Prospect.ENOUGH) and part.study_ratio < LEARNS_NOTHING:
            lines.append(
                f"The {part.name} gets nothing but noise (ratio {part.study_ratio:.2g}): train fewer entries there."
            )
    rejected = [node for node in forecast.nodes if node.rounds_rejected]
    if rejected:
        worst = max(node.rounds_rejected for node in rejected)
        lines.append(
            f"The server will reject {_some([node.name for node in rejected])} in up to {worst} of {forecast.rounds} "
            "rounds: noise alone is longer than it accepts, and the rounds are paid for nevertheless. Lower learning "
            "rates or trained entries, or raise federation.smallest_declared_size."
        )
    typical = forecast.typical_size
    if forecast.prospect is Prospect.ENOUGH and typical.helps:
        lines.append(
            "Sites differ in size, and a small one adds more noise than a large one: with federation.typical_size = "
            f"{typical.mean}, the mean of what they declare, the ratio is {typical.gain:.2f} times as high."
        )
    best, gain = forecast.quietest()
    if forecast.prospect is Prospect.ENOUGH and gain > UNEQUAL * max(1.0, typical.gain):
        have = "has" if len(best) == 1 else "have"
        lines.append(
            f"{_some([node.name for node in best])} alone {have} {gain:.1f} times the ratio of the mean of all: a "
            f"small node adds as much noise as a large one. {_without_others(best, forecast.quorum)}"
        )
    if forecast.left_out:
        lines.append(f"Left out, below federation.smallest_declared_size: {_some(forecast.left_out)}.")
    if forecast.too_few:
        lines.append(f"Only {len(forecast.nodes)} nodes can join, fewer than federation.quorum: no round would count.")
    if not forecast.fits:
        lines.append(
            f"A node with a limit of {forecast.epsilon_limit:g} and {forecast.spent_steps} steps spent affords "
            f"{forecast.rounds_afforded} of {forecast.rounds} rounds, so it cannot approve the study."
        )
    return lines


def _gain(forecast: StudyForecast) -> str:
    """Return the gain by sharing the noise, and which nodes would be lost without the others."""
    gain, lost = forecast.gain_of_shared_noise or 1.0, forecast.lost_alone
    beside = f"If each node added all noise, the ratio would be {forecast.ratio / gain:.2g} instead of"
    line = f"{beside} {forecast.ratio:.2g}, at this epsilon."
    if not lost:
        return f"{line} No node would be lost by itself."
    who = f"All {len(lost)} nodes" if len(lost) == len(forecast.nodes) else f"{len(lost)} nodes ({_some(lost)})"
    return f"{line} {who} would be lost by themselves: below {LEARNS_NOTHING:g}, nothing is learned."


def _without_others(best: Sequence[NodeForecast], quorum: int) -> str:
    if len(best) < quorum:
        return "They are fewer than federation.quorum: they may do better without this study."
    smallest = best[-1].declared_size
    return f"If the task can do without the others' records, set federation.smallest_declared_size to {smallest}."


def facts(forecast: StudyForecast) -> dict[str, str]:
    """Return what is the same at every node, by name."""
    prv = "-" if forecast.epsilon_prv is None else f"{forecast.epsilon_prv:.3f}"
    epsilons = forecast.epsilon_by_round
    afforded = f"affords {forecast.rounds_afforded} of {forecast.rounds}"
    shown = sorted({0, len(epsilons) // 4, len(epsilons) // 2, 3 * len(epsilons) // 4, len(epsilons) - 1})
    return {
        "noise": f"sigma {forecast.noise_multiplier:g}, q {forecast.sampling_rate:g}, {forecast.steps} steps",
        "cost": f"epsilon {epsilons[-1]:.3f} (RDP, which counts), {prv} (PRV), "
        f"delta {forecast.delta:g} per {forecast.unit}",
        "in plain words": in_words(epsilons[-1], forecast.unit),
        "epsilon by round": ", ".join(f"{number + 1}: {epsilons[number]:.2f}" for number in shown),
        "ledger": f"limit {forecast.epsilon_limit:g}, {forecast.spent_steps} steps spent: {afforded} rounds",
        "trained": ", ".join(f"{p.name} {p.dimension} (ratio {p.study_ratio:.2g})" for p in forecast.parts),
        **_start(forecast),
        **({"whitening": forecast.whitening.in_words()} if forecast.whitening else {}),
        "asked per round": f"{forecast.asked_per_round} of {len(forecast.nodes)}; cost is for a node asked every time",
        "mean of the nodes": f"ratio {forecast.mean_update_ratio:.2g} at first, {forecast.ratio:.2g} over the study",
        "twice the rounds": _longer(forecast.gain_of_twice_the_rounds),
        **({"private evaluation": forecast.evaluation.in_words()} if forecast.evaluation else {}),
        "bytes of a node": f"{forecast.bytes_up_per_round:,} up, {forecast.bytes_down_per_round:,} down per round; "
        f"{forecast.bytes_total:,} in all",
    }


def rows(forecast: StudyForecast) -> list[dict[str, str]]:
    """Return one row per node."""
    return [
        {
            "node": node.name,
            "size": str(node.declared_size),
            "batch": f"{node.expected_batch:g}",
            "L": f"{node.divisor:g}",
            "ratio at first": f"{node.update_ratio:.2g}",
            "alone, in all": f"{node.study_ratio:.2g}",
            "noise at first": f"{node.noise_length:.3g}",
            "rejected": f"{node.rounds_rejected} rounds" if node.rounds_rejected else "-",
            **({"evaluated to": forecast.evaluation.of_node(node.declared_size)} if forecast.evaluation else {}),
        }
        for node in forecast.nodes[:SHOWN_NODES]
    ]


def _longer(gain: float | None) -> str:
    if gain is None:
        return "no practical noise would be enough for this epsilon"
    return f"{gain:.2f} times that ratio, at this epsilon and other rates"


def _start(forecast: StudyForecast) -> dict[str, str]:
    rates: dict[str, str] = {}
    if forecast.head_start is not None:
        given = forecast.parts[0].learning_rate
        rates["head"] = f"rate {given:g}; this noise suggests learning_rate {forecast.head_start:.2g}, for a start"
    start = forecast.adapter_start
    if start is not None:
        rate, given = f"adapter_learning_rate {start.learning_rate:.2g}", forecast.parts[1].learning_rate
        rates["adapter"] = f"rate {given:g}; beside that, {rate} and head_share {start.head_share:.3f}"
    return rates


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
