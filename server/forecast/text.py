"""A plan in words and tables, for a terminal of 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from server.forecast.values import NodePlan, StudyPlan
from shared.command_line import print_table
from shared.privacy.signal_to_noise import LEARNS_LITTLE, LEARNS_NOTHING, Prospect

SHOWN_NODES = 20
UNEQUAL = 1.25
"""How many times as quiet the mean of the largest nodes is at which leaving out the others is worth saying."""
BOUND = (
    "Ratios are the longest possible signal over the noise, from public numbers. Real signals are far shorter: of the\n"
    "head, 0.02 to 0.12 of that bound in single rounds of digits and of sentiment. The thresholds allow for it."
)


def as_json(planned: StudyPlan, help_with: Sequence[str]) -> dict[str, Any]:
    """The whole plan as plain values, what would help and what else is wrong included."""
    said = verdict(planned, [])
    return planned.as_dict() | {"verdict": said[0], "help": list(help_with), "warnings": said[1:]}


def show(planned: StudyPlan, help_with: Sequence[str], beside: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Print the plan: the verdict first, then what it rests on.

    Args:
        planned: the plan.
        help_with: changes that would help, from `remedies`.
        beside: more columns for nodes, by their names.
    """
    for line in [*verdict(planned, help_with), ""]:
        print(line)  # noqa: T201 - a command speaks
    print_table([{"": name, " ": value} for name, value in facts(planned).items()])
    print()  # noqa: T201
    print_table([row | dict((beside or {}).get(row["node"], {})) for row in rows(planned)])
    if len(planned.nodes) > SHOWN_NODES:
        print(f"{len(planned.nodes) - SHOWN_NODES} more nodes are in --json.")  # noqa: T201
    print(f"\n{BOUND}")  # noqa: T201


def verdict(planned: StudyPlan, help_with: Sequence[str]) -> list[str]:
    """What to expect, why, what would help, and what else is wrong."""
    best = f"over the whole study the longest signal of the nodes' mean is {planned.ratio:.2g} times its noise"
    told = {
        Prospect.NOTHING: f"This will not learn: {best}, and below {LEARNS_NOTHING:g} nothing is learned.",
        Prospect.LITTLE: f"This will learn little: {best}, and below {LEARNS_LITTLE:g} much is lost.",
        Prospect.ENOUGH: f"Noise leaves room to learn: {best}. Whether the task can be learned, only training shows.",
    }
    lines = [told[planned.prospect]]
    if help_with:
        lines += ["These would help, each enough by itself unless it says otherwise:", *(f"  {c}" for c in help_with)]
    return [*lines, *warnings(planned)]


def warnings(planned: StudyPlan) -> list[str]:
    """What else would be spent for nothing."""
    found = []
    for part in planned.parts:
        if planned.prospect is not Prospect.NOTHING and part.study_ratio < LEARNS_NOTHING:
            found.append(
                f"The {part.name} gets nothing but noise (ratio {part.study_ratio:.2g}): train fewer entries there."
            )
    kept_out = [node for node in planned.nodes if node.rounds_kept_out]
    if kept_out:
        worst = max(node.rounds_kept_out for node in kept_out)
        found.append(
            f"The server will keep out {_some([node.name for node in kept_out])} in up to {worst} of {planned.rounds} "
            "rounds: noise alone is longer than it accepts, and the rounds are paid for all the same. Lower learning "
            "rates or trained entries, or raise federation.smallest_declared_size."
        )
    typical = planned.typical_size
    if planned.prospect is Prospect.ENOUGH and typical.helps:
        found.append(
            "Sites differ in size, and a small one adds more noise than a large one: with federation.typical_size = "
            f"{typical.mean}, the mean of what they declare, the ratio is {typical.gain:.2f} times as high."
        )
    best, gain = planned.quietest()
    if planned.prospect is Prospect.ENOUGH and gain > UNEQUAL * max(1.0, typical.gain):
        have = "has" if len(best) == 1 else "have"
        found.append(
            f"{_some([node.name for node in best])} alone {have} {gain:.1f} times the ratio of the mean of all: a "
            f"small node adds as much noise as a large one. {_without_others(best, planned.quorum)}"
        )
    if planned.left_out:
        found.append(f"Left out, below federation.smallest_declared_size: {_some(planned.left_out)}.")
    if planned.too_few:
        found.append(f"Only {len(planned.nodes)} nodes can join, fewer than federation.quorum: no round would count.")
    if not planned.fits:
        found.append(
            f"A node with a limit of {planned.epsilon_limit:g} and {planned.spent_steps} steps spent affords "
            f"{planned.rounds_afforded} of {planned.rounds} rounds, so it cannot approve the study."
        )
    return found


def _without_others(best: Sequence[NodePlan], quorum: int) -> str:
    if len(best) < quorum:
        return "They are fewer than federation.quorum: they may do better without this study."
    smallest = best[-1].declared_size
    return f"If the task can do without the others' records, set federation.smallest_declared_size to {smallest}."


def facts(planned: StudyPlan) -> dict[str, str]:
    """What is the same at every node."""
    prv = "-" if planned.epsilon_prv is None else f"{planned.epsilon_prv:.3f}"
    every = planned.epsilon_by_round
    afforded = f"affords {planned.rounds_afforded} of {planned.rounds}"
    shown = sorted({0, len(every) // 4, len(every) // 2, 3 * len(every) // 4, len(every) - 1})
    return {
        "noise": f"sigma {planned.noise_multiplier:g}, q {planned.sampling_rate:g}, {planned.steps} steps",
        "cost": f"epsilon {every[-1]:.3f} (RDP, which counts), {prv} (PRV), delta {planned.delta:g} per {planned.unit}",
        "epsilon by round": ", ".join(f"{number + 1}: {every[number]:.2f}" for number in shown),
        "ledger": f"limit {planned.epsilon_limit:g}, {planned.spent_steps} steps spent: {afforded} rounds",
        "trained": ", ".join(f"{p.name} {p.dimension} (ratio {p.study_ratio:.2g})" for p in planned.parts),
        **_start(planned),
        **_whitening(planned),
        "asked per round": f"{planned.asked_per_round} of {len(planned.nodes)}; cost is for a node asked every time",
        "mean of the nodes": f"ratio {planned.mean_update_ratio:.2g} at first, {planned.ratio:.2g} over the study",
        "twice the rounds": _longer(planned.gain_of_twice_the_rounds),
        "bytes of a node": f"{planned.bytes_up_per_round:,} up, {planned.bytes_down_per_round:,} down per round; "
        f"{planned.bytes_total:,} in all",
    }


def rows(planned: StudyPlan) -> list[dict[str, str]]:
    """One row per node."""
    return [
        {
            "node": node.name,
            "size": str(node.declared_size),
            "batch": f"{node.expected_batch:g}",
            "L": f"{node.divisor:g}",
            "ratio at first": f"{node.update_ratio:.2g}",
            "alone, in all": f"{node.study_ratio:.2g}",
            "noise at first": f"{node.noise_length:.3g}",
            "kept out": f"{node.rounds_kept_out} rounds" if node.rounds_kept_out else "-",
        }
        for node in planned.nodes[:SHOWN_NODES]
    ]


def _longer(gain: float | None) -> str:
    if gain is None:
        return "no practical noise would be enough for this epsilon"
    return f"{gain:.2f} times that ratio, at this epsilon and other rates"


def _start(planned: StudyPlan) -> dict[str, str]:
    found: dict[str, str] = {}
    if planned.head_start is not None:
        given = planned.parts[0].learning_rate
        found["head"] = f"rate {given:g}; this noise suggests learning_rate {planned.head_start:.2g}, for a start"
    start = planned.adapter_start
    if start is not None:
        rate, given = f"adapter_learning_rate {start.learning_rate:.2g}", planned.parts[1].learning_rate
        found["adapter"] = f"rate {given:g}; beside that, {rate} and head_share {start.head_share:.3f}"
    return found


def _whitening(planned: StudyPlan) -> dict[str, str]:
    found = planned.whitening
    if found is None:
        return {}
    stands_out = f"of {found.width} directions, one stands out that holds {100 * found.edge:.2g} % of the features"
    doubtful = "too loud to gain by it" if found.hopeless else "it may gain, or cost its round"
    suggested = "worth a trial" if found.possible else doubtful
    return {"whitening": f"{'on' if found.on else 'off'}; {stands_out}: {suggested}"}


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
