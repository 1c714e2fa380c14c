"""Word a result's comparisons, the same in tables and report: differences, held-out counts, units."""

from shared.study.sections import RECORD
from simulations.results.metric_names import is_share, points, signed
from simulations.results.result import Result

COVERED = "Intervals cover other held-out records of the same sites, not other seeds."


def differences_title(result: Result) -> str:
    """Return the title of the table of differences, with what they are shown in."""
    unit = "in points" if in_points(result) else "positive where it is better"
    return f"Federated minus each other arm, {unit}"


def difference_cells(result: Result) -> dict[str, tuple[str, str]]:
    """Write each difference and its interval, by the other arm's name."""
    write = points if in_points(result) else signed
    return {
        name: (write(one.value), f"{write(one.low)} to {write(one.high)}") for name, one in result.differences.items()
    }


def in_points(result: Result) -> bool:
    """Return whether differences are shown in points: hundredths of what could be reached."""
    values = [arm.quality.value for arm in result.arms.values()]
    return is_share(values, higher_is_better=result.final.higher_is_better)


def held_out(result: Result) -> str:
    """Name the held-out records and count them; older results know no counts."""
    counts = [site.evaluated for site in result.data.values() if site.evaluated is not None]
    records = f"{sum(counts):,} held-out records" if counts else "held-out records"
    drawn = next(iter(result.differences.values()), None)
    return records if drawn is None or drawn.unit == RECORD else f"{records} of {drawn.units:,} {drawn.unit}s"


def evaluated_at(result: Result, site: str) -> str:
    """Write a site's number of held-out records; older results know none."""
    known = result.data[site].evaluated if site in result.data else None
    return "" if known is None else f"{known:,}"


def unit_of(result: Result) -> str:
    """Return the unit whose presence the study hides, such as `record` or `patient`."""
    return next(iter(result.privacy.values())).unit
