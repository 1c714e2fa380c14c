"""Draw a comparison: epsilon against quality, rounds side by side, and every arm of one setting."""

import math
from collections.abc import Sequence

from shared.evidence.facts import Interval
from shared.pages.blocks import Picture
from shared.pages.charts import Line, lines
from simulations.board.comparison import Comparison, Setting, families
from simulations.results.metric_names import direction, words
from simulations.results.report import OURS, UNPROTECTED

MOST_LINES = 10
"""More of them in one drawing cannot be told apart."""


def best(comparison: Comparison) -> list[Setting]:
    """Return the settings that are drawn: all, or the best where there are more than can be told apart."""
    sign = -1.0 if comparison.higher_is_better else 1.0

    def badness(one: Setting) -> float:
        value = one.quality().value
        return sign * value if math.isfinite(value) else math.inf

    if len(comparison.settings) <= MOST_LINES:
        return list(comparison.settings)
    chosen = sorted(comparison.settings, key=badness)[:MOST_LINES]
    return [one for one in comparison.settings if one in chosen]


def axis(comparison: Comparison) -> str:
    """Name the metric as an axis does."""
    name = words(comparison.metric)
    return f"{name[:1].upper()}{name[1:]}{direction(higher_is_better=comparison.higher_is_better)}"


def epsilon_against_quality(comparison: Comparison) -> Picture | None:
    """Draw each setting at what it spends; None where all spend the same."""
    drawn = best(comparison)
    if len({round(one.epsilon, 3) for one in drawn}) < 2:
        return None
    series = list[Line]()
    for family in families(drawn):
        label = family[0].label if len(family) == 1 else "federated"
        qualities = [one.quality() for one in family]
        points = [(one.epsilon, quality.value) for one, quality in zip(family, qualities, strict=True)]
        series.append(Line(label, points, "ours" if not series else "plain", [_ends(one) for one in qualities]))
    across = [one.epsilon for one in drawn]
    reference = next((one for one in drawn if UNPROTECTED in one.arms), None)
    if reference is not None:
        level = _level(reference, UNPROTECTED, min(across), max(across))
        series.append(_line(reference, UNPROTECTED, level))
    return lines("What ε costs", series, across="ε that a site spends", up=axis(comparison))


def rounds_side_by_side(comparison: Comparison) -> Picture | None:
    """Draw the study's own arm of every setting, round by round; None where no run was evaluated twice."""
    series = [Line(one.label, curve) for one in best(comparison) if len(curve := one.curve()) > 1]
    if not series:
        return None
    return lines("Round by round", series, across="round", up=axis(comparison), counts=True)


def every_arm(comparison: Comparison, setting: Setting) -> Picture | None:
    """Draw one setting's own arm round by round, beside the others' curves, or else the level that each comes to."""
    curve = setting.curve()
    if len(curve) < 2:
        return None
    first, last = curve[0][0], curve[-1][0]
    others = [
        _line(setting, name, setting.curve(name) or _level(setting, name, first, last))
        for name in setting.arms
        if name != OURS
    ]
    series = [Line(setting.arms[OURS], curve, "ours"), *others]
    return lines(f"Every arm: {setting.label}", series, across="round", up=axis(comparison), counts=True)


def _level(setting: Setting, arm: str, first: float, last: float) -> list[tuple[float, float]]:
    value = setting.quality(arm).value
    return [(first, value), (last, value)]


def _line(setting: Setting, arm: str, points: Sequence[tuple[float, float]]) -> Line:
    private = all(run.result.arms[arm].private for run in setting.runs)
    return Line(setting.arms[arm], points, "plain" if private else "warning")


def _ends(quality: Interval) -> tuple[float, float] | None:
    return None if quality.low is None or quality.high is None else (quality.low, quality.high)


def drawn_of(comparison: Comparison) -> Sequence[str]:
    """Say which settings are drawn, where that is not all of them."""
    if len(comparison.settings) <= MOST_LINES:
        return []
    return [f"The best {MOST_LINES} of {len(comparison.settings)} settings are drawn; the table has all of them."]
