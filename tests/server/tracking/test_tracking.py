"""Curves in MLflow: a real tracking store, whole after faults, and never in a run's way."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli.app import cli
from server.run_store.store import Store
from server.settings import Home
from server.tracking import mlflow_server
from server.tracking.background import InBackground
from server.tracking.curves import Curves, finite, flattened, of_evaluations
from server.tracking.from_store import curves_of
from server.tracking.mlflow_server import send
from shared.errors import PeerError, SettingsError
from shared.private_evaluation.estimates import Estimate, Evaluated
from shared.study.declaration import Study
from tests.support.paths import ROOT
from tests.support.stores import filled

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own tables
ROUNDS = {1: {"accuracy": 0.5}, 2: {"accuracy": 0.6}, 3: {"accuracy": 0.7}}
CURVES = Curves("r-1", "a study r-1", {"privacy.epsilon": "3.0"}, {"epsilon.st-mary": "0.5"}, ROUNDS)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps the files of a database's runs below the folder that it was called in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def seen(uri: str) -> Callable[[str], tuple[Any, dict[int, float]]]:
    """MLflow's own run by ours, with one metric by step."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)

    def look(key: str) -> tuple[Any, dict[int, float]]:
        group = client.get_experiment_by_name("fedvault")
        assert group is not None
        (run,) = client.search_runs([group.experiment_id], filter_string=f"tags.`fedvault.run` = '{key}'")
        history = client.get_metric_history(run.info.run_id, "accuracy")
        assert len(history) == len({point.step for point in history}), "nothing twice"
        return run, {point.step: point.value for point in history}

    return look


def test_a_run_goes_on_in_the_same_run_of_mlflow_and_nothing_is_there_twice(
    uri: str, seen: Callable[..., Any], tmp_path: Path
) -> None:
    begun = Curves("r-1", CURVES.name, CURVES.params, CURVES.tags, {1: ROUNDS[1], 2: ROUNDS[2]})
    first = send(uri, begun)
    assert send(uri, begun) == first
    card = tmp_path / "adapter" / "README.md"
    card.parent.mkdir()
    card.write_text("the card")
    whole = Curves("r-1", CURVES.name, CURVES.params, CURVES.tags, ROUNDS, "finished", (card.parent,))
    assert send(uri, whole) == first
    run, accuracy = seen("r-1")
    assert accuracy == {1: 0.5, 2: 0.6, 3: 0.7}
    assert run.data.params == {"privacy.epsilon": "3.0"}
    assert run.data.tags["fedvault.epsilon.st-mary"] == "0.5" and run.info.status == "FINISHED"


def test_what_stopped_half_way_is_made_whole(
    uri: str, seen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after two of three rounds; what is sent then completes the run."""
    curves = Curves("r-2", "r-2", {}, {}, ROUNDS)
    add_step, steps = mlflow_server._add_step, list[int]()

    def breaks(client: Any, name: str, kind: str, step: int, values: Any) -> None:
        if step == 3:
            raise OSError("gone")
        steps.append(step)
        add_step(client, name, kind, step, values)

    with monkeypatch.context() as patch, pytest.raises(PeerError, match="OSError"):
        patch.setattr(mlflow_server, "_add_step", breaks)
        send(uri, curves)
    assert steps == [1, 2]
    send(uri, curves)
    run, accuracy = seen("r-2")
    assert accuracy == {1: 0.5, 2: 0.6, 3: 0.7} and run.data.tags["fedvault.round"] == "3"


def test_a_private_evaluation_comes_after_its_round_and_is_there_once(uri: str, seen: Callable[..., Any]) -> None:
    """An evaluation is over when its round, and perhaps the next one, have long been sent."""
    from mlflow.tracking import MlflowClient

    send(uri, replace(CURVES, key="r-3"))
    worst = Estimate(scope="worst site", measure="accuracy", value=0.6, low=0.5, high=0.7)
    hidden = Estimate(scope="all sites", measure="macro F1")
    one_site = Estimate(scope="site", name="st-mary", measure="accuracy", value=0.9)
    evaluated = Evaluated(number=2, epsilon=1.0, sigma=2.0, sites=("st-mary",), estimates=(worst, hidden, one_site))
    evaluations = of_evaluations([evaluated, evaluated.model_copy(update={"number": 3, "estimates": (hidden,)})])
    assert evaluations == {
        2: {
            "private/worst site/accuracy": 0.6,
            "private/worst site/accuracy/low": 0.5,
            "private/worst site/accuracy/high": 0.7,
        }
    }
    for _ in range(2):
        send(uri, replace(CURVES, key="r-3", ending="finished", evaluations=evaluations))
    run, accuracy = seen("r-3")
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, "private/worst site/accuracy")
    assert [(point.step, point.value) for point in history] == [(2, 0.6)]
    assert accuracy == {1: 0.5, 2: 0.6, 3: 0.7} and run.info.status == "FINISHED"


def test_a_file_that_comes_after_the_end_is_sent_and_what_is_there_is_left(uri: str, tmp_path: Path) -> None:
    """As `track RUN --also pilot.pdf` sends it of a run that was sent while it ran."""
    from mlflow.tracking import MlflowClient

    card, report = tmp_path / "adapter" / "README.md", tmp_path / "pilot.pdf"
    card.parent.mkdir()
    card.write_text("the card")
    finished = replace(CURVES, key="r-4", ending="finished", artifacts=(card.parent,))
    name = send(uri, finished)
    card.write_text("another card")
    for content in ("half of a page", "a page"):
        report.write_text(content)
        send(uri, replace(finished, also=(report,)))
    client = MlflowClient(tracking_uri=uri)
    assert Path(client.download_artifacts(name, "pilot.pdf")).read_text() == "a page", "whoever names it means this one"
    assert {file.path for file in client.list_artifacts(name)} == {"adapter", "pilot.pdf"}
    assert Path(client.download_artifacts(name, "adapter/README.md")).read_text() == "the card"


REPORTS_USAGE = """
from server.tracking.mlflow_server import require_mlflow
require_mlflow()
from mlflow.telemetry import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled
print(not is_telemetry_disabled(), get_telemetry_client() is not None)
"""


def test_mlflow_reports_nothing_to_its_makers(tmp_path: Path) -> None:
    """In a process without pytest and without CI, where MLflow reports nothing anyway."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", REPORTS_USAGE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False False\n"), done.stderr


def test_who_wants_mlflow_to_report_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    for wish in ("false", "true"):
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", wish)
        mlflow_server.require_mlflow()
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == wish


def test_the_servers_image_has_every_extra_that_server_toml_may_need() -> None:
    (extras,) = re.findall(r'pip install "\.\[([\w,]+)\]"', (ROOT / "docker" / "server.Dockerfile").read_text())
    needed = re.findall(r"Needs the extra `(\w+)`", (ROOT / "server" / "SERVER_TOML.md").read_text())
    assert needed and {*needed, "postgresql"} <= set(extras.split(","))


def test_what_mlflow_cannot_draw_is_left_out_and_settings_have_dotted_names() -> None:
    assert finite({"a": 1, "b": float("nan"), "c": float("inf"), "d": None, "e": "word"}) == {"a": 1.0}
    assert flattened({"privacy": {"epsilon": 3.0, "deep": {"x": [1]}}}) == {
        "privacy.epsilon": "3.0",
        "privacy.deep.x": "[1]",
    }


@pytest.mark.parametrize("uri", ["runs/mlflow", "mlflow"])
def test_a_folder_is_refused_by_name(uri: str) -> None:
    with pytest.raises(SettingsError, match="Expected the URI of an MLflow server"):
        send(uri, CURVES)


def test_a_password_in_an_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PeerError) as refused:
        send("http://someone:sesame@127.0.0.1:9", CURVES)
    assert "sesame" not in f"{refused.value}{refused.value.hint}"


@pytest.mark.guarantee("a run's rounds take no longer and end no other way because of where its curves go.")
def test_a_run_neither_waits_nor_fails_for_its_curves() -> None:
    calls = list[float]()

    def hangs() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise OSError("no such server")
        time.sleep(30)

    began = time.monotonic()
    curves = InBackground(hangs)
    for _ in range(1000):
        curves.soon()
    curves.close(patience_s=0.05)
    assert time.monotonic() - began < 10 and calls
    with InBackground(None) as nothing:
        nothing.soon()


def test_every_round_is_sent_by_the_end_however_quickly_they_came() -> None:
    rounds, sent = list[int](), list[int]()

    def send_all() -> None:
        sent[:] = rounds

    with InBackground(send_all) as curves:
        for number in range(50):
            rounds.append(number)
            curves.soon()
    assert sent == list(range(50))


def test_the_command_sends_what_the_store_holds(
    make_study: Callable[..., Study], tmp_path: Path, uri: str, seen: Callable[..., Any]
) -> None:
    home = Home(tmp_path / "server")
    done = CliRunner().invoke(cli, ["init", "--host", "server.example.org", "--home", str(home.folder)])
    assert done.exit_code == 0, done.output
    with Store(home.database()) as store:
        name = filled(store, make_study)
        curves = curves_of(store, store.run(name), home.runs / name / "adapter")
    missing = CliRunner().invoke(cli, ["track", name, "--home", str(home.folder)])
    assert missing.exit_code != 0 and "Expected --mlflow" in str(missing.exception)
    home.config.write_text(f'{home.config.read_text()}\nmlflow = "{uri}"\n')
    done = CliRunner().invoke(cli, ["track", name, "--json", "--home", str(home.folder)])
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    assert json.loads(done.stdout)["rounds"] == len(curves.rounds) > 1
    run, accuracy = seen(name)
    assert accuracy == {number: pytest.approx(0.1 + number / 7) for number in curves.rounds}
    assert run.data.params["privacy.epsilon"] == str(make_study().privacy.epsilon)
    assert {"nodes/accepted", "bytes/up"} < set(run.data.metrics)
    for file, told in ((tmp_path / "absent.pdf", "absent.pdf is not there"), (home.config, "Expected a finished run")):
        refused = CliRunner().invoke(cli, ["track", name, "--also", str(file), "--home", str(home.folder)])
        assert refused.exit_code != 0 and told in str(refused.exception)
