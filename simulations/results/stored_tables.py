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


def write_tables(
    folder: Path, result: Result, *, kind: TaskKind, predictions: Mapping[str, Sequence[Seen]] | None = None
) -> None:
    """Write rounds, sites, arms, privacy, metrics and curves, each as a file of its own.

    Args:
        folder: for the files; is made.
        result: of a finished run.
        kind: of task.
        predictions: by arm, for `predictions.parquet`; default: none is written.
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
    if predictions:
        frames["predictions"] = predictions_frame(predictions, kind)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        write_atomically(folder / f"{name}.parquet", frame.to_parquet())


def predictions_frame(predictions: Mapping[str, Sequence[Seen]], kind: TaskKind) -> pd.DataFrame:
    """Tabulate arms' answers to held-out records: `record` counts a site's usable ones, in the order of the table.

    `prediction` is what users of the finished model get, `evidence` what metrics are computed from, with the truth in
    it, both as JSON; `score` is between 0 and 1, where 1 is right.
    """
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "site": site,
                "record": record,
                "prediction": json.dumps(kind.prediction(one), default=_plain),
                "evidence": json.dumps(one, default=_plain),
                "score": kind.score(one),
            }
            for arm, of_sites in predictions.items()
            for site, evidence in of_sites
            for record, one in enumerate(evidence)
        ]
    )


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
    return pd.read_parquet(path)


def _plain(value: Any) -> Any:
    return value.tolist()
