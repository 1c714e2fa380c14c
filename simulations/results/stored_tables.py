"""A result's frames as Parquet files, for whoever goes on with pandas, R or SQL; and predictions, where they were asked
for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shared.errors import SettingsError
from shared.files import write_atomically
from shared.tasks.kind import TaskKind
from simulations.engines.worker import Seen
from simulations.results.frames import (
    arms_frame,
    curves_frame,
    metrics_frame,
    norms_frame,
    privacy_frame,
    rounds_frame,
    sites_frame,
)
from simulations.results.result import Result

PREDICTIONS = "predictions.parquet"


def write_tables(folder: Path, result: Result, predictions: pd.DataFrame | None = None) -> None:
    """Write rounds, sites, arms, privacy, metrics and curves, each as a file of its own.

    Args:
        folder: for the files; is made.
        result: of a finished run.
        predictions: as `predictions_frame` makes them; default: none are written.
    """
    frames = {
        "rounds": rounds_frame(result).reset_index(),
        "sites": sites_frame(result).reset_index(),
        "arms": arms_frame(result).reset_index(),
        "privacy": privacy_frame(result).reset_index(),
        "metrics": metrics_frame(result),
        "curves": curves_frame(result),
    }
    if not (norms := norms_frame(result)).empty:
        frames["update_norms"] = norms
    if predictions is not None:
        frames["predictions"] = predictions
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        write_atomically(folder / f"{name}.parquet", frame.to_parquet())


def predictions_frame(
    predictions: Mapping[str, Sequence[Seen]], kind: TaskKind, rows: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """Tabulate arms' answers to held-out records, one a row.

    Args:
        predictions: by arm and site.
        kind: of task.
        rows: of the table, counted from 1, by site: those that its usable held-out records were.
    """
    frame = pd.DataFrame(
        [
            {
                "arm": arm,
                "site": site,
                "record": record,
                "row": rows[site][record] if site in rows else None,
                "prediction": _plain(kind.prediction(one)),
                "truth": _plain(kind.truth(one)),
                "score": kind.score(one),
                "evidence": json.dumps(one, default=_plain),
            }
            for arm, of_sites in predictions.items()
            for site, evidence in of_sites
            for record, one in enumerate(evidence)
        ]
    )
    return frame.assign(prediction=_of_one_type(frame.prediction), truth=_of_one_type(frame.truth))


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read the predictions that a run kept.

    Raises:
        SettingsError: it kept none.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        raise SettingsError(
            f"Expected predictions in {path}, got nothing.", hint="simulation.predictions = true keeps those of a run."
        )
    answers = pd.read_parquet(path)
    if "truth" in answers:
        return answers
    # of a run from before truths were written, whose answers are JSON
    return answers.assign(prediction=answers.prediction.map(json.loads), row=None, truth=None)


def _plain(value: Any) -> Any:
    """Return a value as Parquet takes it, which has no half of a character."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    plain = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(one) for one in plain] if isinstance(plain, list | tuple) else plain


def _of_one_type(answers: pd.Series) -> pd.Series:
    """Return answers as they are; of tasks whose answers differ in their type, those that are no text as JSON."""
    if len({type(one) for one in answers if one is not None}) < 2:
        return answers
    return answers.map(lambda one: one if isinstance(one, str) else json.dumps(one))
