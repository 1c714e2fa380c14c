"""Sends a run's curves to MLflow. What is there is left: sent again after any fault, nothing is there twice."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from server.tracking.curves import Curves
from shared.environment import QUIET
from shared.errors import PeerError, SettingsError

EXPERIMENT = "fedvault"
TAG = "fedvault."
LONGEST_VALUE = 5_000
"""Characters of a parameter; MLflow takes 6,000."""
AT_ONCE = {"metrics": 1000, "params": 100, "tags": 100}
"""The most that MLflow takes in one request."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
STATES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "running": "RUNNING"}


def require_mlflow() -> None:
    """Import MLflow, which then reports nothing to its makers; refuse to track without it.

    A variable that is set already stays as it is.

    Raises:
        SettingsError: MLflow is not installed.
    """
    os.environ |= QUIET | os.environ
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise SettingsError(
            "Expected mlflow-skinny, which sends curves to MLflow, got none.", hint="pip install 'fedvault[tracking]'"
        ) from None


def send(uri: str, curves: Curves, *, experiment: str = EXPERIMENT) -> str:
    """Send whatever an MLflow server does not have of a run yet, and return the name of MLflow's own run.

    Args:
        uri: of the server, as in https://mlflow.example.org, or of its database, as in sqlite:///mlflow.db.
        curves: the run, from its beginning.
        experiment: MLflow's group of runs; made if it is not there.

    Raises:
        SettingsError: MLflow is not installed, or the URI is a folder, which MLflow keeps no longer.
        PeerError: the server cannot be reached, or refuses.
    """
    require_mlflow()
    if "://" not in uri:
        raise SettingsError(f"Expected the URI of an MLflow server, got {uri!r}.", hint="sqlite:///mlflow.db is one.")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(tracking_uri=uri)
        return _send(client, curves, experiment)
    except (MlflowException, OSError) as error:  # the URI may hold a password, and what MLflow says may hold the URI
        raise PeerError(
            f"Expected an MLflow server that takes the curves of {curves.name!r}, got {type(error).__name__}.",
            hint="Nothing is lost: send them again when it is there.",
        ) from None


def _send(client: Any, curves: Curves, experiment: str) -> str:
    from mlflow.entities import Param, RunTag

    group = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if group is None else group.experiment_id
    known = client.search_runs([number], filter_string=f"tags.`{TAG}run` = '{curves.key}'", max_results=1)
    run = known[0] if known else client.create_run(number, tags={f"{TAG}run": curves.key}, run_name=curves.name)
    name = str(run.info.run_id)
    if not run.data.params:
        params = [Param(key, value[:LONGEST_VALUE]) for key, value in curves.params.items()]
        _in_parts(client, name, "params", params)
    for kind, steps in (("round", curves.rounds), ("evaluation", curves.evaluations)):
        done = int(run.data.tags.get(f"{TAG}{kind}", 0))
        for step, values in sorted(steps.items()):
            if step > done:
                _add_step(client, name, kind, step, values)
    _in_parts(client, name, "tags", [RunTag(TAG + key, value[:LONGEST_VALUE]) for key, value in curves.tags.items()])
    if curves.ending == "finished":
        _send_artifacts(client, name, curves, incomplete=run.info.status != STATES["finished"])
    if run.info.status != STATES[curves.ending]:
        client.update_run(name, status=STATES[curves.ending])
    return name


def _send_artifacts(client: Any, name: str, curves: Curves, *, incomplete: bool) -> None:
    """Send files and folders; of a run that MLflow has as finished, the run's own only where their names are missing.

    Args:
        client: MLflow's.
        name: of MLflow's run.
        curves: with what is to be there in the end.
        incomplete: whether an earlier attempt may have ended half way through one; all are sent then.
    """
    there = set() if incomplete else {artifact.path for artifact in client.list_artifacts(name)}
    for path in (*(own for own in curves.artifacts if own.name not in there), *curves.also):
        if path.is_dir():
            client.log_artifacts(name, str(path), artifact_path=path.name)
        else:
            client.log_artifact(name, str(path))


def _add_step(client: Any, name: str, kind: str, step: int, values: Mapping[str, float]) -> None:
    """Add a round or an evaluation in one request, with the note that it is there: otherwise it could be twice."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    metrics = [Metric(key, value, now, step) for key, value in list(values.items())[: AT_ONCE["metrics"]]]
    client.log_batch(name, metrics=metrics, tags=[RunTag(f"{TAG}{kind}", str(step))])


def _in_parts(client: Any, name: str, what: str, values: Sequence[Any]) -> None:
    for part in _parts(values, AT_ONCE[what]):
        client.log_batch(name, **{what: part})


def _parts(values: Sequence[Any], most: int) -> Iterator[list[Any]]:
    remaining = iter(values)
    while part := list(islice(remaining, most)):
        yield part
