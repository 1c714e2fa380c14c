"""Engines without a run: addresses of clusters, and workers that die or are left alone."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import simulations
from shared.errors import RunError, SettingsError
from simulations.engines.local import LocalEngine
from simulations.engines.ray import _join
from simulations.experiment.scenario import Scenario
from simulations.progress import SilentProgress
from simulations.run import Run
from tests.support.tiny_run import declaration

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("address", "error"), [("127.0.0.1:1", RunError), ("127.0.0.1:99999", RunError), ("there", SettingsError)]
)
def test_an_address_without_a_cluster_is_said_at_once(address: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=address):
        _join(address, {})


def test_an_address_goes_with_the_ray_engine(tiny_bert: Path, tmp_path: Path) -> None:
    scenario = Scenario.model_validate(declaration(tiny_bert))
    with pytest.raises(SettingsError, match="--ray-address"):
        Run(scenario, tmp_path, tmp_path, SilentProgress(), ray_address="127.0.0.1:1")


def test_a_worker_that_dies_is_a_node_that_died(tmp_path: Path) -> None:
    engine = LocalEngine(tmp_path, processes=1)
    try:
        with pytest.raises(RunError, match="one that was killed"):
            engine.map(os._exit, [(1,)])
        steps: list[None] = []
        assert engine.map(abs, [(-3,), (4,)], done=lambda: steps.append(None)) == [3, 4] and len(steps) == 2
    finally:
        engine.close()


KILLED = """
import os, pathlib, sys
from simulations.engines.local import LocalEngine
if __name__ == "__main__":
    engine = LocalEngine(pathlib.Path(sys.argv[1]), processes=1)
    print(*engine.map(os.getpid, [()]), flush=True)
    sys.stdin.read()
"""


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command, root = [sys.executable, str(script), str(tmp_path)], Path(simulations.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        worker = psutil.Process(int(run.stdout.readline()))
        run.kill()
        worker.wait(timeout=300)
