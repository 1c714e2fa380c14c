"""Turn a result into pandas frames: its rounds, sites, arms and privacy, one row each; metrics and curves, one value
each."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from simulations.results.result import ArmResult, Quality, Result, RoundResult


def rounds_frame(result: Result) -> pd.DataFrame:
    """Tabulate the study's own arm by round; quality is missing where a round was not evaluated."""
    return _frame([_round(one) for one in result.rounds], "round")


def sites_frame(result: Result) -> pd.DataFrame:
    """Tabulate sites: their records by use, and the main metric of every arm there, under the arm's name."""
    rows = [
        {"site": name, **data.model_dump(), **{arm: one.quality.per_site.get(name) for arm, one in result.arms.items()}}
        for name, data in result.data.items()
    ]
    return _frame(rows, "site")


def arms_frame(result: Result) -> pd.DataFrame:
    """Tabulate arms: size, cost and quality, and `federated` minus each with the interval over held-out records."""
    return _frame([_arm(result, name, one) for name, one in result.arms.items()], "arm")


def metrics_frame(result: Result) -> pd.DataFrame:
    """Tabulate every metric of every arm's last adapter at every site, one value a row."""
    return pd.DataFrame(
        [
            {"arm": name, "site": site, "metric": metric, "value": value}
            for name, arm in result.arms.items()
            for site, metrics in arm.quality.metrics_by_site.items()
            for metric, value in metrics.items()
        ],
        columns=["arm", "site", "metric", "value"],
    )


def norms_frame(result: Result) -> pd.DataFrame:
    """Tabulate the length of each site's update by round; empty unless the run kept them."""
    rows = [
        {"round": one.round, "site": site, "norm": norm}
        for one in result.rounds
        for site, norm in one.update_norms.items()
    ]
    return pd.DataFrame(rows, columns=["round", "site", "norm"])


def curves_frame(result: Result) -> pd.DataFrame:
    """Tabulate arms round by round: every metric over all sites, and the main one by site, one value a row."""
    curves = {name: dict(arm.curve) for name, arm in result.arms.items()}
    curves["federated"] = {one.round: one.evaluation for one in result.rounds if one.evaluation is not None}
    rows = [
        {"arm": name, "round": number, "site": site, "metric": metric, "value": value}
        for name, curve in curves.items()
        for number, measured in sorted(curve.items())
        for site, metric, value in _points(measured)
    ]
    return pd.DataFrame(rows, columns=["arm", "round", "site", "metric", "value"])


def privacy_frame(result: Result) -> pd.DataFrame:
    """Tabulate what each site has spent, as in `result.json`."""
    return _frame([{"site": name, **spent.model_dump()} for name, spent in result.privacy.items()], "site")


def _points(measured: Quality) -> Iterable[tuple[str | None, str, float]]:
    yield from ((None, name, value) for name, value in measured.metrics.items())
    yield from ((site, measured.metric, value) for site, value in measured.per_site.items())


def _round(one: RoundResult) -> dict[str, Any]:
    plain = {
        "round": one.round,
        "outcome": one.outcome,
        "seconds": one.seconds,
        "accepted": one.accepted,
        "rejected": len(one.rejected),
        "refused": len(one.refused),
        "missing": len(one.missing),
    }
    quality = one.evaluation
    if quality is None:
        return plain
    worst = quality.worst_site
    return plain | {
        "value": quality.value,
        "worst_site": worst.site,
        "worst": worst.value,
        **_prefixed(quality.metrics),
    }


def _arm(result: Result, name: str, arm: ArmResult) -> dict[str, Any]:
    difference = result.differences.get(name)
    return {
        "arm": name,
        "title": arm.title,
        "private": arm.private,
        "epsilon": arm.epsilon,
        "rows": arm.rows,
        "steps": arm.steps,
        "seconds": arm.seconds,
        "value": arm.quality.value,
        "worst_site": arm.quality.worst_site.site,
        "worst": arm.quality.worst_site.value,
        "federated_minus": None if difference is None else difference.value,
        "low": None if difference is None else difference.low,
        "high": None if difference is None else difference.high,
        **_prefixed(arm.quality.metrics),
    }


def _prefixed(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"metric:{name}": value for name, value in metrics.items()}


def _frame(rows: Iterable[Mapping[str, Any]], index: str) -> pd.DataFrame:
    return pd.DataFrame([dict(row) for row in rows]).set_index(index)
