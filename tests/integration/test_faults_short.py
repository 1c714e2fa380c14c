"""The faults of `make e2e` in a shorter form: three tiny nodes as real processes, one study that goes on meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.base_models.locate import find
from shared.study.declaration import load_study
from shared.study.sections import Model
from simulations.e2e import budgets, certificates, crowd, faults
from simulations.e2e.budgets import limit_for_one
from simulations.e2e.federation import Federation, wait_until
from simulations.e2e.rogue import KINDS
from simulations.e2e.scene import Scene

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
SLOW = pytest.mark.slow
HONEST, ROGUE, TIGHT = ["river", "harbour"], "forest", "harbour"
STUDY = """
[study]
name = "short faults"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 16
[training]
local_steps = 100
learning_rate = 0.001
adapter_learning_rate = 0.001
whitening = true
[federation]
rounds = 600
quorum = 1
deadline_s = 30
smallest_declared_size = 10
"""


@pytest.fixture(scope="module")
def scene(federation: Federation, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two honest nodes in training and one that is enrolled and does not run."""
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    study = tmp_path_factory.mktemp("short") / "study.toml"
    study.write_text(STUDY.format(model=tiny_bert))
    tight = limit_for_one(load_study(study), 1e-5)
    for name in [*HONEST, ROGUE]:
        epsilon = tight if name == TIGHT else 30.0
        rows = [f"{name}{i} {'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
        policy = f'epsilon = {epsilon}\ndelta = 1e-5\ndeclared_size = 54\nmodels = ["{fingerprint}"]\n'
        federation.make_node(
            name,
            "text,label\n" + "\n".join(rows) + "\n",
            f"{policy}smallest_cohort = 1\n[performance]\nthreads = 1\n",
            node=f'models = "{tiny_bert.parent}"\nlocal_metrics = false',
        )
        federation.enrol(name)
    for name in HONEST:
        federation.node(name, "start", "--detach")
    run = federation.start_study(study)
    try:
        federation.approve(HONEST, run)
        found = Scene(federation, run, HONEST, ROGUE, TIGHT)
        wait_until(found.records, "the first round")
        yield found
    finally:
        federation.server("stop", run, "--yes")
        for name in HONEST:
            federation.node(name, "stop", check=False)


def test_a_vault_killed_in_training_loses_its_round_and_is_back(scene: Scene) -> None:
    assert "was lost at river" in faults.killed_in_training(scene)


def test_a_killed_server_process_goes_on_and_does_no_round_twice(scene: Scene) -> None:
    assert "goes on with round" in faults.killed_run(scene)


def test_a_killed_superlink_and_gateway_are_back_and_so_are_the_nodes(scene: Scene) -> None:
    scene.federation.signal("server", "superlink")
    assert "goes on with round" in faults.killed_gateway_and_link(scene)


# every reason is held to account by the tests of update filter and gateway; two go the whole way here, all in test-all
@pytest.mark.parametrize(
    "kind", [kind if kind in ("nan", "replay") else pytest.param(kind, marks=SLOW) for kind in KINDS]
)
def test_a_node_that_misbehaves_is_rejected(scene: Scene, kind: str) -> None:
    assert faults.EXPECTED.get(kind, "its bytes were not taken") in faults.misbehaving(scene, kind)


def test_whoever_was_not_invited_is_not_let_in(scene: Scene) -> None:
    assert "no invite, no entry" in certificates.uninvited(scene)


def test_strangers_and_a_member_that_take_what_they_can_stop_nobody(scene: Scene) -> None:
    assert "of 400 did not last" in crowd.idle_strangers(scene)
    assert "answers, round" in crowd.knocking_strangers(scene)
    assert "empty promises" in crowd.missing_bodies(scene)


@pytest.mark.slow  # the gateway's refusal and doctor's words are tested by themselves; this is the way back
def test_a_node_whose_certificate_has_expired_is_not_let_in(scene: Scene) -> None:
    assert "back in round" in certificates.expired_node_certificate(scene)


def test_a_whole_node_frozen_past_the_deadline_is_late_and_comes_back(scene: Scene) -> None:
    assert "late in round" in faults.frozen_node(scene)


@pytest.mark.slow  # the storm has it without processes; here a run is stopped and resumed in the middle as well
def test_a_round_that_everybody_is_late_for_is_asked_again_and_used(scene: Scene) -> None:
    assert "was asked" in faults.everybody_frozen(scene)


@pytest.mark.slow  # two more studies, minutes: `make test-all` and `make e2e` run it
def test_a_budget_that_was_spent_refuses_the_next_study_and_nothing_else(scene: Scene) -> None:
    assert "refuses the next study for its budget" in budgets.budget_is_spent(scene)


@pytest.mark.slow  # the vault's own tests lower a limit under a run; this is the whole way, round by round
def test_a_limit_that_is_lowered_is_filled_and_ends_that_node_and_nobody_else(scene: Scene) -> None:
    assert "more rounds, refuses in round" in budgets.limit_is_lowered(scene)


def test_nobody_was_charged_twice_for_a_round(scene: Scene) -> None:
    assert faults.nobody_is_charged_twice(scene) == "every ledger whole"
