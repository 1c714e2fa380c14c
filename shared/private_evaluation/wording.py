"""Word the estimates of a private evaluation for a terminal or a card."""

from collections.abc import Sequence

from shared.private_evaluation.choice import Choice
from shared.private_evaluation.estimates import UNITS, Estimate, Evaluated

SHOWN_CELLS = 12
"""Rows of a confusion matrix, or of bins of confidence, that a terminal shows; JSON has all."""
CELL_SCOPES = ("true label", "confidence")
NOT_SHOWN = "not shown"
NO_SITES = "there is no number of a single site, and no worst one"
LEGEND = (
    "Intervals are of 95 %, for whom the units were drawn from: they cover the noise and the draw of units; the last\n"
    "column, for these very units, covers the noise alone. That of a worst site holds the least value of all sites,\n"
    "whichever it is. There is a gap where its interval begins above 0; where there is none, a row says so in at most\n"
    f"5 of 100 evaluations. '{NOT_SHOWN}': it rests on a count below five standard deviations of its noise."
)


def headline(evaluated: Evaluated) -> str:
    """Return one sentence or two on an evaluation: who answered, and with which noise."""
    sites, summed = len(evaluated.sites), evaluated.one_sum
    line = f"Private evaluation after round {evaluated.number}: "
    if summed is None:
        line += f"{sites} {'site' if sites == 1 else 'sites'} sent counts of held-out units, each with noise of "
        line += f"{evaluated.sigma:.2f} units."
    elif summed.sigma is None:
        line += f"no counts: {summed.lost}."
    else:
        line += f"only the sum of {sites} sites' counts of held-out units was opened, each with noise of "
        line += f"{summed.sigma:.2f} units; {NO_SITES}."
    without = ", ".join(f"{site} ({reason})" for site, reason in sorted(evaluated.without.items()))
    return f"{line} Without {without}." if without else line


def rows(estimates: Sequence[Estimate]) -> list[dict[str, str]]:
    """Return estimates as rows of a table; of single cells only a few."""
    cells = [one for one in estimates if one.scope in CELL_SCOPES]
    shown = estimates if len(cells) <= SHOWN_CELLS else [one for one in estimates if one.scope not in CELL_SCOPES]
    return [_row(one) for one in shown]


def markdown(evaluated: Evaluated) -> str:
    """Return an evaluation for a model card: without what names a site, which a card does not."""
    public = [one for one in evaluated.estimates if one.scope not in ("site", *CELL_SCOPES)]
    header = ("of", "measure", "value", "95 % interval")
    table = [[_unnamed(one), what(one), *list(_row(one).values())[2:4]] for one in public]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *table)]
    summed = evaluated.one_sum
    sigma = evaluated.sigma if summed is None or summed.sigma is None else summed.sigma
    only_sum = "" if summed is None else f" Only their sum was opened: {NO_SITES}."
    return f"""From noisy counts over records that organisations held out, {len(evaluated.sites)} of them, after round
{evaluated.number}: each count has noise of {sigma:.2f} units, which costs a held-out unit epsilon
{evaluated.epsilon:g} at most. Intervals cover that noise and the draw of units.{only_sum}

{chr(10).join(lines)}"""


def choice_lines(choice: Choice, last: int) -> list[str]:
    """Return sentences on which evaluation is best, what that says, and whether the run went on.

    Args:
        choice: among a run's evaluations.
        last: finished round of the run.
    """
    compared, latest = f"{', '.join(map(str, choice.compared[:-1]))} and {choice.compared[-1]}", choice.compared[-1]
    clearly = "" if choice.clear else f" It is not better than that after round {latest} by more than their noise."
    handed_out = choice.handed_out(last)
    lines = [
        f"Of the evaluations after rounds {compared}, that after round {choice.best} is best, by {choice.measure} over "
        f"{_sites(choice)}: {choice.value:.3f}, and {choice.low:.3f} to {choice.high:.3f} for whichever is chosen."
        + ("" if choice.best == latest else clearly),
        "The best of several noisy figures is rather too high; this interval, of 95 %, allows for the choice.",
        f"The adapter after round {handed_out} is handed out."
        if choice.hands_out
        else "The last round's adapter is handed out.",
    ]
    if choice.stop_after is not None:
        lines.append(
            f"Evaluations in a row that were not better by more than their noise: {choice.without_improvement}. "
            f"{'The run ended there' if choice.ends_after(last) else 'The run ends'} after {choice.stop_after}."
        )
    return lines


def _sites(choice: Choice) -> str:
    count = len(choice.sites)
    return "the one site that answered all of them" if count == 1 else f"the {count} sites that answered all of them"


def _unnamed(estimate: Estimate) -> str:
    return "worst organisation" if estimate.scope == "worst site" else of_whom(estimate)


def left_out(estimates: Sequence[Estimate]) -> str:
    """Return how many rows of single cells `rows` leaves out; empty if none."""
    cells = sum(one.scope in CELL_SCOPES for one in estimates)
    return f"{cells} more, cell by cell, are in --json." if cells > SHOWN_CELLS else ""


def of_whom(estimate: Estimate) -> str:
    """Return whom an estimate is of, in words."""
    name = estimate.name
    return {
        "all sites": "all sites",
        "site": f"site {name}",
        "worst site": f"worst site ({name})",
        "subgroup": f"subgroup {name}",
        "gap": "gap between subgroups",
        "true label": f"true label {name}",
        "confidence": f"confidence from {name}",
    }[estimate.scope]


def what(estimate: Estimate) -> str:
    """Return what an estimate measures, in words."""
    if not estimate.label:
        return estimate.measure
    return f"{estimate.measure} {'as' if estimate.scope == 'true label' else 'of'} {estimate.label}"


def figure(value: float, measure: str) -> str:
    """Write a value, or an end of its interval."""
    return f"{value:.0f}" if measure == UNITS else f"{value:.3f}"


def _row(estimate: Estimate) -> dict[str, str]:
    value, measure = estimate.value, estimate.measure
    return {
        "of": of_whom(estimate),
        "measure": what(estimate),
        "value": NOT_SHOWN if value is None else figure(value, measure),
        "95 % interval": _interval(estimate.low, estimate.high, measure),
        "of these units": _interval(estimate.low_here, estimate.high_here, measure),
    }


def _interval(low: float | None, high: float | None, measure: str) -> str:
    return "" if low is None or high is None else f"{figure(low, measure)} to {figure(high, measure)}"
