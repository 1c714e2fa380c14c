"""The outcome of a sweep as files: sweep.json with everything, table.csv with one row for each arm at each setting, and
one picture."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from shared.evidence.facts import Interval
from shared.files import write_atomically
from shared.pages.charts import Bar, bars, on_white
from shared.private_evaluation.estimates import Evaluated
from shared.study.declaration import Study, recorded
from simulations.experiment.scenario import parse_value
from simulations.results.metric_names import heading, shown, words
from simulations.results.pictures import Svg
from simulations.results.report import OURS
from simulations.results.result import Result
from simulations.run_identity.settings import precision_of
from simulations.sweeps.cells import Cell, named
from simulations.sweeps.execution import Outcomes
from simulations.sweeps.statistics import Against, Compared, Row, Setting, against_first, evaluations_of, rows_of
from simulations.sweeps.tuning_cost import TuningCost, tuning_cost

MOST_BARS = 40
"""With more settings times arms than this, the picture shows the study's own arm alone."""


@dataclass(frozen=True)
class Sweep:
    """Holds what every run of a sweep gave, its result or its error, and the tables that are made of them."""

    results: Mapping[Cell, Result]
    errors: Mapping[Cell, str]
    rows: Sequence[Row]
    against: Sequence[Against]
    cost: TuningCost | None
    """None for several settings that differ in nothing that a study declares, such as the split: then real records
    leave nothing to choose."""
    folder: Path | None = None
    first: Setting = ()
    """The one that was declared first: others are set against it."""
    trial: "Sweep | None" = None
    """The settings on validation records, where one of them was chosen by these."""

    def __repr__(self) -> str:
        settings = ", ".join(dict.fromkeys(named(cell.setting) for cell in (*self.results, *self.errors)))
        return f"Sweep({len(self.results)} runs, {len(self.errors)} failed: {settings})"

    @property
    def table(self) -> pd.DataFrame:
        """One row for each arm at each setting: mean over seeds, interval of 95 %, and `federated` minus that arm."""
        return pd.DataFrame([_plain_setting(row.setting) | _plain_row(row) for row in self.rows])

    @property
    def against_first(self) -> pd.DataFrame:
        """The study's own arm at each setting minus the first setting, by seed, with p and Holm's p."""
        return pd.DataFrame([_plain_setting(one.setting) | _plain_against(one) for one in self.against])

    @property
    def first_failed(self) -> bool:
        """Return whether no run of the first setting has finished, so that none is set against it."""
        return bool(self.results) and all(cell.setting != self.first for cell in self.results)

    @property
    def evaluations(self) -> list[tuple[Setting, Evaluated]]:
        """The last private evaluation at each setting that has one: means over seeds, and intervals."""
        return evaluations_of(self.results)

    @property
    def picture(self) -> Svg:
        """Bars with intervals, one for each arm at each setting, as SVG; empty where every run failed."""
        if not self.results:
            return Svg("")
        drawn = self.rows if len(self.rows) <= MOST_BARS else [row for row in self.rows if row.arm == OURS]
        first = next(iter(self.results.values())).final
        name = words(first.metric)
        title = heading(first.metric, "by setting", higher_is_better=first.higher_is_better)
        return Svg(bars(title, [_bar(row) for row in drawn], axis=name).svg)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON holds."""
        first = next(iter(self.results.values()), None)
        return {
            "metric": None if first is None else first.final.metric,
            "higher_is_better": None if first is None else first.final.higher_is_better,
            "evaluated_on": None if first is None else first.evaluated_on,
            "rows": [{"setting": _plain_setting(row.setting), **_plain_row(row)} for row in self.rows],
            "first_setting_failed": self.first_failed,
            "against_first": [{"setting": _plain_setting(one.setting), **_plain_against(one)} for one in self.against],
            "private_evaluations": [
                {"setting": _plain_setting(setting), **one.model_dump(mode="json")} for setting, one in self.evaluations
            ],
            "cost_of_choosing": None if self.cost is None else self.cost._asdict(),
            "chosen_on_validation": None if self.trial is None else self.trial.as_dict(),
            "cells": [
                {"changes": list(cell.changes), "folder": cell.folder, "value": result.final.value}
                for cell, result in self.results.items()
            ],
            "failed": [{"changes": list(cell.changes), "error": error} for cell, error in self.errors.items()],
        }


def summarise(outcomes: Outcomes, folder: Path | None = None) -> Sweep:
    """Compute everything that a sweep shows."""
    results, by_setting = outcomes.results, dict[Setting, Result]()
    for cell, result in results.items():
        by_setting.setdefault(cell.setting, result)
    studies = {_trained_by(result): result.scenario for result in by_setting.values()}
    sites, cost = min((len(result.privacy) for result in results.values()), default=0), None
    if len(studies) > 1 or len(by_setting) == 1:
        cost = tuning_cost([_study(scenario) for scenario in studies.values()], sites)
    first = next((cell.setting for cell in outcomes), ())
    against = against_first(results, first)
    return Sweep(results, outcomes.errors, rows_of(results), against, cost, folder, first)


def _trained_by(result: Result) -> tuple[str, ...]:
    """Return what a private run on real records would follow from: the study, and what it rounds to."""
    return result.study_sha256, *map(str, precision_of(result.scenario.get("performance", {})).values())


def _study(scenario: Mapping[str, Any]) -> Study:
    return recorded({key: value for key, value in scenario.items() if key != "simulation"}, where="result.json")


def write(sweep: Sweep, folder: Path) -> list[Path]:
    """Write sweep.json, table.csv and sweep.svg into a folder; returns their paths.

    Where every run failed there is no table and no picture: those of an earlier sweep there are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"sweep.json": as_json(sweep) + "\n"}
    if not sweep.results:
        for name in ("table.csv", "sweep.svg"):
            (folder / name).unlink(missing_ok=True)
    if sweep.results:
        table = io.StringIO()
        sweep.table.to_csv(table, index=False)
        files |= {"table.csv": table.getvalue(), "sweep.svg": on_white(sweep.picture)}
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in files]


def as_json(sweep: Sweep) -> str:
    """Return everything as JSON; what is not finite is written as a word."""
    return json.dumps(_finite(sweep.as_dict()), indent=1, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _plain_setting(setting: Setting) -> dict[str, Any]:
    """Return values by key: numbers and truth values as such, text without quotes, lists as TOML writes them.

    None stands for what a compared run does not have.
    """
    values = {key: (text, None if text in ("", "null") else parse_value(text)) for key, text in setting}
    return {
        key: one if one is None or isinstance(one, (int, float, str)) else text for key, (text, one) in values.items()
    }


def _plain_row(row: Row) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "title": row.title,
        "private": row.private,
        "epsilon": row.epsilon,
        "seeds": row.seeds,
        "mean": row.quality.value,
        "low": row.quality.low,
        "high": row.quality.high,
        "worst_site": row.worst,
        **_plain_compared("federated_minus", row.ahead),
    }


def _plain_against(one: Against) -> dict[str, Any]:
    return {"first": named(one.first), "pairs": one.compared.seeds, **_plain_compared("minus", one.compared)} | {
        "holm_p": one.holm
    }


def _plain_compared(name: str, one: Compared | None) -> dict[str, Any]:
    interval = Interval(value=math.nan) if one is None else one.minus
    return {
        name: None if one is None else interval.value,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
        f"{name}_p": None if one is None else one.p,
    }


def _bar(row: Row) -> Bar:
    one = row.quality
    value = one.value if math.isfinite(one.value) else None
    ends = "" if one.low is None or one.high is None else f" ({shown(one.low)} – {shown(one.high)})"
    tone = "ours" if row.arm == OURS else "plain" if row.private else "warning"
    label = row.title if not row.setting else f"{named(row.setting)}: {row.title}"
    return Bar(label, value, f"{shown(one.value)}{ends}", one.low, one.high, tone)  # type: ignore[arg-type]
