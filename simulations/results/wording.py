"""Word a result's comparisons, the same in tables and card: differences, held-out counts, units."""

from shared.privacy.in_words import if_all_collude
from shared.study.sections import RECORD
from simulations.results.metric_names import is_share, points, shown, signed, words
from simulations.results.result import ArmResult, Difference, Result

VALIDATION = (
    "Validation records are a share of the training records, for choosing settings; held-out ones were not used."
)


def in_one_line(result: Result) -> str:
    """Return which run it is and what it came to: `vader, seed 1, ε = 3, accuracy: federated 0.791, majority 0.512`."""
    scenario, final = result.scenario, result.final
    named = [str(scenario.get("study", {}).get("name", "")), f"seed {scenario.get('simulation', {}).get('seed')}"]
    spent = max((site.epsilon_rdp for site in result.privacy.values()), default=0.0)
    arms = ", ".join(f"{name} {shown(arm.quality.value)}" for name, arm in result.arms.items())
    return f"{', '.join(named)}, ε = {spent:.3g}, {words(final.metric)}: {arms}"


def spent_in_words(arm: ArmResult) -> str:
    """Return a protected arm's epsilon, with what is left of it if sites share one noise and all others collude."""
    if arm.epsilon is None:
        return "-"
    if arm.epsilon_if_all_collude is None:
        return f"{arm.epsilon:.2f}"
    return f"{arm.epsilon:.2f} (if all others collude, {if_all_collude(arm.epsilon_if_all_collude)})"


def covered(result: Result) -> str:
    """Say what the intervals cover."""
    return f"Intervals cover other {records_of(result)} of the same sites, not other seeds."


def records_of(result: Result) -> str:
    """Name the records that arms are evaluated on."""
    return f"{result.evaluated_on} records"


def differences_title(result: Result) -> str:
    """Return the title of the table of differences, with what they are shown in."""
    unit = "in points" if in_points(result) else "positive where it is better"
    return f"Federated minus each other arm, {unit}"


def difference_cells(result: Result) -> dict[str, tuple[str, str]]:
    """Write each difference and its interval, by the other arm's name."""
    return {name: _written(result, one) for name, one in result.differences.items()}


def _written(result: Result, one: Difference) -> tuple[str, str]:
    write = points if in_points(result) else signed
    return write(one.value), f"{write(one.low)} to {write(one.high)}"


def in_points(result: Result) -> bool:
    """Return whether differences are shown in points: hundredths of what could be reached."""
    values = [arm.quality.value for arm in result.arms.values()]
    return is_share(values, higher_is_better=result.final.higher_is_better)


def notes(result: Result) -> list[str]:
    """Return a sentence on each arm whose figures need one, on other records than held-out ones, and on plug-ins."""
    by_arm = [f"{arm.title} {arm.note}" for arm in result.arms.values() if arm.note]
    others = [f"Code of another package took part: {one.in_words}." for one in result.plugins]
    return [*by_arm, *([] if result.evaluated_on == "held-out" else [VALIDATION]), *others]


def held_out(result: Result) -> str:
    """Name the held-out records, or those for validation, and count them; older results know no counts."""
    counts = [site.evaluated for site in result.data.values() if site.evaluated is not None]
    records = f"{sum(counts):,} {records_of(result)}" if counts else records_of(result)
    drawn = next(iter(result.differences.values()), None)
    return records if drawn is None or drawn.unit == RECORD else f"{records} of {drawn.units:,} {drawn.unit}s"


def evaluated_at(result: Result, site: str) -> str:
    """Write a site's number of held-out records; older results know none."""
    known = result.data[site].evaluated if site in result.data else None
    return "" if known is None else f"{known:,}"


def unit_of(result: Result) -> str:
    """Return the unit whose presence the study hides, such as `record` or `patient`."""
    return next(iter(result.privacy.values())).unit
