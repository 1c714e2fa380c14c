"""Turn a result into pandas frames: its rounds, sites, arms and privacy, one row each; metrics and curves, one value
each.

`COLUMNS` says what each column of theirs and of stored predictions is; RESULT.md shows it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from shared.section import Section
from simulations.results.result import ArmResult, Quality, Result, RoundResult, SiteData, SitePrivacy


def _described(part: type[Section]) -> dict[str, str]:
    return {f"`{name}`": str(field.description) for name, field in part.model_fields.items()}


ARM, SITE = "Name of the arm; `federated` is the study's own.", "Name of the site."
ROUND = "Number of the round, from 1."
VALUE = "The main metric over all sites, in its own unit: an accuracy is a fraction of 1."
WORST = {"`worst_site`": "The site with the worst main metric.", "`worst`": "Its main metric, in the same unit."}
NAMED = {"`metric:NAME`": "Each metric of the task over all sites, in its own unit."}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "rounds": {
        "`round`": ROUND,
        "`outcome`": "aggregated, or lost below the quorum.",
        "`seconds`": "Wall time in seconds, evaluation included.",
        "`accepted`": "Number of updates that were aggregated.",
        "`rejected`": "Number of replies that were rejected.",
        "`refused`": "Number of replies without an update.",
        "`missing`": "Number of sites that were silent to the end.",
        "`value`": f"{VALUE} Missing, as all that follow, where a round was not evaluated.",
        **WORST,
        **NAMED,
    },
    "sites": {
        "`site`": SITE,
        **_described(SiteData),
        "`ARM`": "The main metric of each arm at this site, under the arm's name, in its own unit.",
    },
    "arms": {
        "`arm`": ARM,
        "`title`": "The arm in words.",
        "`private`": "Whether it is protected.",
        "`epsilon`": "Total cost to one unit; missing where none is spent or nothing is protected.",
        "`rows`": "Number of training records.",
        "`steps`": "Number of steps per site.",
        "`seconds`": "Wall time of training and evaluation, in seconds.",
        "`value`": VALUE,
        **WORST,
        "`federated_minus`": "`federated` minus this arm, in the metric's unit; positive where `federated` is better.",
        "`low`": "Lower end of that difference's 95 % interval, over held-out units.",
        "`high`": "Upper end.",
        **NAMED,
    },
    "privacy": {"`site`": SITE, **_described(SitePrivacy)},
    "metrics": {
        "`arm`": ARM,
        "`site`": SITE,
        "`metric`": "Name of the metric.",
        "`value`": "Of the arm's last adapter on this site's held-out records, in the metric's own unit.",
    },
    "curves": {
        "`arm`": ARM,
        "`round`": ROUND,
        "`site`": "Name of the site; missing in rows over all sites.",
        "`metric`": "Name of the metric: each one over all sites, the main one by site.",
        "`value`": "After the round, on held-out records, in the metric's own unit.",
    },
    "update_norms": {
        "`round`": ROUND,
        "`site`": SITE,
        "`norm`": "Euclidean length of the site's update as it was sent, in parameter units: most of it is noise.",
    },
    "predictions": {
        "`arm`": ARM,
        "`site`": "Name of the site that held the record out; `global test` with one test table for all.",
        "`record`": "Place among the site's usable held-out records, from 0, in the order of the table.",
        "`row`": "Row of the table, from 1, as in `prepared/partition.csv`; rows of `validation` and `test` files of "
        "their own count on after it, in this order. Missing in runs of before.",
        "`prediction`": "The answer that users of the finished model get: a label, a text, a number, or a list. "
        "Missing for tasks whose evidence holds counts alone: language models and masks of images.",
        "`truth`": "The true answer, in the same form; of questions, every right answer.",
        "`score`": "How good the answer is, from 0 to 1; 1 is right.",
        "`evidence`": "The values that metrics are computed from, as JSON.",
    },
}
"""Meaning and unit of each column, by table; names in capitals stand for several."""
ABOUT_TABLES = (
    "`tables/` holds figures of the same run as Parquet files. A result in Python has each as a pandas frame: "
    "`result.curves` is\n`tables/curves.parquet`. `rounds`, `sites`, `arms` and `privacy` have their first column as "
    "index there."
)
TABLES = {
    "metrics": "every metric of every arm at every site, one value a row.",
    "curves": 'arms round by round, one value a row. Other arms than `federated` with `simulation.curves = "all"`.',
    "update_norms": "with `simulation.update_norms`.",
    "predictions": "each arm's last answer to each held-out record, with `simulation.predictions`. It holds what "
    "records say. Where a task has answers of several types, those that are no text are written as JSON.",
}
"""Sentences on tables that need one."""


def tables_markdown() -> str:
    """Return the columns of every table as Markdown."""
    parts = [f"## Tables\n\n{ABOUT_TABLES}\n"]
    for name, columns in COLUMNS.items():
        about = f"`tables/{name}.parquet`: {TABLES[name]}\n\n" if name in TABLES else ""
        rows = "\n".join(f"| {column} | {meaning} |" for column, meaning in columns.items())
        parts.append(f"### {name}\n\n{about}| column | meaning |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


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
