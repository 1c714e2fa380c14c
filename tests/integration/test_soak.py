"""A storm of kills over light nodes and one real vault: nothing is lost, nothing charged twice, nothing grows."""

from pathlib import Path

import pytest

from server.settings import Home
from shared.base_models.locate import find
from shared.study.sections import Model
from simulations.e2e import faults
from simulations.e2e.federation import Federation, wait_until
from simulations.e2e.light_nodes import ROOM, all_connected, enrol, playing
from simulations.e2e.scene import Scene
from simulations.e2e.soak import storm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]
REAL = "harbour"
STUDY = """
[study]
name = "soak"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 16
[training]
local_steps = 2
learning_rate = 0.001
adapter_learning_rate = 0.001
[federation]
rounds = 2000
quorum = {quorum}
deadline_s = 60
smallest_declared_size = 10
"""


@pytest.mark.parametrize(
    ("nodes", "seconds"), [(6, 30.0), pytest.param(30, 1200.0, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_a_storm_of_kills_loses_nothing_and_charges_nothing_twice(
    tmp_path: Path, tiny_bert: Path, nodes: int, seconds: float
) -> None:
    federation, study = Federation(tmp_path), tmp_path / "study.toml"
    study.write_text(STUDY.format(model=tiny_bert, quorum=nodes))
    try:
        federation.make_server(ROOM + "grace_s = 5.0")
        _make_real_node(federation, tiny_bert)
        members = enrol(Home(federation.home), tmp_path, nodes)
        federation.server("start", "--detach")
        wait_until(federation.ready, "the server runs")
        federation.enrol(REAL)
        federation.node(REAL, "start", "--detach")
        with playing(members) as lights:
            wait_until(lambda: all_connected(members), "every light node is connected")
            run = federation.start_study(study)
            federation.approve([REAL], run)
            wait_until(lambda: federation.run(run)["history"], "the first round")
            soaked = storm(federation, run, REAL, lights, seconds=seconds, seed=7)
        federation.server("stop", run, "--yes")
        assert faults.nobody_is_charged_twice(Scene(federation, run, [REAL], REAL, REAL)) == "every ledger whole"
        assert soaked.kills >= seconds / 10 and soaked.accepted >= soaked.rounds * nodes * 0.9
    finally:
        federation.stop()


def _make_real_node(federation: Federation, model: Path) -> None:
    rows = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
    policy = (
        f'epsilon = 30.0\ndelta = 1e-5\ndeclared_size = 54\nmodels = ["{find(Model(source=str(model))).fingerprint}"]\n'
    )
    federation.make_node(
        REAL,
        "text,label\n" + "\n".join(rows) + "\n",
        f"{policy}smallest_cohort = 1\n[performance]\nthreads = 1\n",
        node=f'models = "{model.parent}"\nlocal_metrics = false',
    )
