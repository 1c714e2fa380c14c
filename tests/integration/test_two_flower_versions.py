"""A federation whose processes run two versions of Flower: `make test-flower` runs it, with the other version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions, version
from pathlib import Path

import httpx
import psutil
import pytest
from packaging.version import Version

from server.flower.superlink import SECRET_HEADER
from server.settings import Home
from shared.base_models.locate import find
from shared.study.sections import Model
from simulations.e2e.federation import Federation, wait_until
from tests.support.other_flower import OVERLAY

FOLDER = os.environ.get(OVERLAY, "")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FOLDER, reason="`make test-flower` runs it, which installs a second version of Flower"),
]
STUDY = """
[study]
name = "two versions"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 16
[training]
local_steps = 2
learning_rate = 0.01
[federation]
rounds = {rounds}
quorum = 2
deadline_s = 120
smallest_declared_size = 10
"""


@contextmanager
def flower(wanted: Version) -> Iterator[None]:
    """Commands typed in here, and the processes they start, run this version."""
    path = os.environ["PYTHONPATH"]
    if wanted != Version(version("flwr")):
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in path.split(os.pathsep) if part != FOLDER)
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = path


@pytest.fixture
def versions() -> list[Version]:
    """The older and the newer one."""
    found = {Version(one.version) for one in distributions(name="flwr")}
    assert len(found) == 2 and Version(version("flwr")) in found
    return sorted(found)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """Nothing runs yet."""
    found = Federation(tmp_path)
    yield found
    found.stop()


def start_server(federation: Federation, wanted: Version) -> None:
    with flower(wanted):
        federation.server("start", "--detach")
    wait_until(federation.ready, "the server runs")
    home = Home(federation.home)
    address = f"http://127.0.0.1:{home.settings().superlink_port}/openapi.json"
    served = httpx.get(address, headers={SECRET_HEADER: home.secret()}).json()
    assert Version(served["info"]["version"]) == wanted


def start_node(federation: Federation, name: str, wanted: Version, models: Path, fingerprint: str) -> None:
    rows = [f"{name}{i} {'good' if i % 2 else 'bad'},{'yes' if i % 2 else 'no'}" for i in range(60)]
    policy = f'epsilon = 5.0\ndelta = 1e-5\ndeclared_size = 54\nmodels = ["{fingerprint}"]\nsmallest_cohort = 1\n'
    with flower(wanted):
        federation.make_node(
            name,
            "text,label\n" + "\n".join(rows) + "\n",
            policy + "approval = 'within-policy'\n[performance]\nthreads = 1\n",
            node=f'models = "{models}"',
        )
        federation.enrol(name)
        federation.node(name, "register", "ward")
        federation.node(name, "start", "--detach")
    is_over = FOLDER in psutil.Process(federation.pid(name, "link")).environ()["PYTHONPATH"].split(os.pathsep)
    assert is_over == (wanted == Version(version("flwr")))


def start_study(federation: Federation, model: Path, wanted: Version, *, rounds: int) -> str:
    study = federation.folder / f"{rounds}-rounds.toml"
    study.write_text(STUDY.format(model=model, rounds=rounds))
    with flower(wanted):
        return federation.start_study(study)


def wait_for_rounds(federation: Federation, run: str, count: int) -> int:
    """Wait for so many rounds, each with an update of both nodes; returns how many there are."""
    wait_until(lambda: len(federation.run(run)["history"]) >= count, f"{count} rounds", timeout_s=300)
    history = federation.run(run)["history"]
    assert {(record["outcome"], len(record["accepted"])) for record in history} == {("aggregated", 2)}, history
    return len(history)


def test_nodes_of_both_versions_train_while_the_server_is_upgraded_and_taken_back(
    federation: Federation, versions: list[Version], tiny_bert: Path
) -> None:
    older, newer = versions
    with flower(older):
        federation.make_server()
    start_server(federation, older)
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    for name, wanted in (("river", older), ("harbour", newer)):
        start_node(federation, name, wanted, tiny_bert.parent, fingerprint)
    wait_for_rounds(federation, start_study(federation, tiny_bert, older, rounds=1), 1)
    federation.server("halt")
    start_server(federation, newer)
    run = start_study(federation, tiny_bert, newer, rounds=300)
    finished = wait_for_rounds(federation, run, 1)
    federation.server("halt")
    start_server(federation, older)
    wait_for_rounds(federation, run, finished + 2)
