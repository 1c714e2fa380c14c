"""Faults and attacks on purpose: what the server makes of them, and what results say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.rounds.checkpoints import Checkpoints
from shared.errors import DataError, RunError, SettingsError
from shared.protocol.messages import Vector
from shared.records.ragged import load
from simulations.api import load_scenario, run
from simulations.experiment.arms import arm_folder
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario
from simulations.experiment.trouble import Trouble
from simulations.results.result import Result, ServerCrash
from simulations.results.trouble import sentences, trouble_of

Scenarios = Callable[..., Scenario]
DATA = {"source": "table.csv", "partition": {"by": "column", "column": "site"}}
SCENARIO = """
[study]
name = "mine"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[adapter]
layers = "last:1"
[training]
local_steps = 2
[federation]
smallest_declared_size = 20
[simulation]
seed = 7
arms = ["federated", "untroubled"]
processes = 1
[simulation.data]
source = "table.csv"
partition = {{ by = "column", column = "site" }}
"""


@pytest.fixture
def ran(tmp_path: Path, tiny_bert: Path, table: pd.DataFrame) -> Callable[..., Result]:
    def made(rounds: int, **trouble: Any) -> Result:
        (tmp_path / "mine.toml").write_text(SCENARIO.format(model=tiny_bert))
        table.to_csv(tmp_path / "table.csv", index=False)
        changes = {"federation.rounds": rounds, "simulation.trouble": trouble}
        return run(load_scenario(tmp_path / "mine.toml", changes), out=tmp_path / "run").figures

    return made


def adapters(folder: Path) -> tuple[Vector, Vector]:
    """The final adapters of the study's own arm and of the same without trouble."""
    states = []
    for name in ("federated", "untroubled"):
        checkpoints = Checkpoints(arm_folder(folder, name) / "checkpoints")
        numbers = sorted(int(path.stem[-5:]) for path in checkpoints.folder.glob("round-*.json"))
        states.append(checkpoints._load(numbers[-1]))
    assert states[0] is not None and states[1] is not None
    return states[0].adapter, states[1].adapter


def test_where_hardly_a_site_answers_the_hint_says_what_to_change(ran: Callable[..., Result]) -> None:
    with pytest.raises(RunError, match=r"got none; sites answered: \d lost") as refused:
        ran(1, drop_out=0.99)
    expected = (
        "With simulation.trouble.drop_out=0.99, 0.03 of 3 sites answer a round on average, and federation.quorum=2"
    )
    assert refused.value.hint.startswith(expected) and "lower drop_out" in refused.value.hint


def test_an_arm_that_would_be_the_study_again_is_left_out_and_named(ran: Callable[..., Result]) -> None:
    result = ran(1)
    assert "untroubled" not in result.arms
    expected = "The arm untroubled is left out: nothing befalls the study, [simulation.trouble] is empty."
    assert expected in result.warnings


def test_a_server_that_is_cut_off_ends_with_the_same_adapter(ran: Callable[..., Result], tmp_path: Path) -> None:
    result = ran(2, server_crash_round=2, slow_sites=["north"], slow_s=30.0)
    assert result.trouble is not None and result.trouble.server_crash == ServerCrash(round=2, continued_after=1)
    assert result.trouble.waited_s == 60.0 and not result.trouble.too_late
    assert np.array_equal(*adapters(tmp_path / "run")), "nothing was lost, and no time passed"
    assert result.differences["untroubled"].value == 0.0
    assert any("cut off in round 2, and went on" in warning for warning in result.warnings)


def test_lost_answers_and_a_scaled_update_are_told_by_site(ran: Callable[..., Result], tmp_path: Path) -> None:
    result = ran(3, drop_out=0.6, poisoned_sites=["south"], poison="scaled-update", poison_factor=-1000.0)
    trouble = result.trouble
    assert trouble is not None and trouble.dropped_out == {"south": [1], "east": [2, 3], "north": [2]}
    assert [one.outcome for one in result.rounds] == ["aggregated", "lost", "lost"] and trouble.rounds_lost == 2
    south = trouble.poisoned["south"]
    assert south.accepted == 0 and south.rejected == {"norm": 2}, "the filter sees what is far too long"
    for site, rounds in trouble.dropped_out.items():
        for number in rounds:
            assert {"site": site, "status": "lost"} in result.rounds[number - 1].refused
    assert {site.steps for site in result.privacy.values()} == {6}, "what was lost is paid for"
    assert not np.array_equal(*adapters(tmp_path / "run"))


def test_a_noise_free_update_is_accepted_and_said_to_protect_nobody(ran: Callable[..., Result], tmp_path: Path) -> None:
    result = ran(1, poisoned_sites=["south"], poison="noise-free-update")
    assert result.trouble is not None and result.trouble.poisoned["south"].accepted == 1
    assert result.trouble.poisoned["south"].quiet == 1, "the server names it"
    assert any("named as quieter than its noise 1 time." in warning for warning in result.warnings)
    assert any("NOTHING protected the records of 'south'" in warning for warning in result.warnings)
    assert "NOTHING protected" in (tmp_path / "run" / "adapter" / "README.md").read_text()
    ours, untroubled = adapters(tmp_path / "run")
    assert np.linalg.norm(ours) < np.linalg.norm(untroubled), "a third of the noise is not there"


def test_flipped_labels_stand_beside_the_sites_own_and_in_no_held_out_record(
    scenario: Scenarios, table: pd.DataFrame, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "table.csv", index=False)
    trouble = {"poisoned_sites": ["south"], "poison": "flipped-labels"}
    declared = scenario(simulation={"seed": 7, "data": DATA, "trouble": trouble})
    made = prepare(declared, tmp_path / "table.csv", tmp_path)
    (south,) = (site for site in made.sites if site.name == "south")
    own, flipped = load(made.train_path(south)), load(made.flipped_path(south))
    assert len(own) == len(flipped) > 0
    assert all(np.array_equal(own["ids"][row], flipped["ids"][row]) for row in range(len(own)))
    targets = [np.concatenate([records["target"][row] for row in range(len(own))]) for records in (own, flipped)]
    assert np.array_equal(targets[1], 1 - targets[0])
    assert [path.name for path in tmp_path.glob("*.flipped.npz")] == [made.flipped_path(south).name]


def test_labels_that_nothing_could_flip_are_said(scenario: Scenarios, table: pd.DataFrame, tmp_path: Path) -> None:
    table.assign(label=["maybe" if site == "south" else label for site, label in zip(table.site, table.label,
                 strict=True)]).to_csv(tmp_path / "table.csv", index=False)  # fmt: skip
    trouble = {"poisoned_sites": ["south"], "poison": "flipped-labels"}
    declared = scenario(simulation={"data": DATA, "trouble": trouble})
    with pytest.raises(DataError, match="labels of the study in column 'label' to flip"):
        prepare(declared, tmp_path / "table.csv", tmp_path)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"drop_out": 1.0}, "drop_out"),
        ({"slow_sites": ["north"]}, "slow_sites and slow_s together"),
        ({"slow_s": 3.0}, "slow_sites and slow_s together"),
        ({"poisoned_sites": ["north"]}, "poisoned_sites and poison together"),
        ({"poison": "flipped-labels"}, "poisoned_sites and poison together"),
        ({"poisoned_sites": ["north"], "poison": "flipped-labels", "poison_factor": 2.0}, "only goes with"),
        ({"poisoned_sites": ["north"], "poison": "scaled-update", "poison_factor": 0.0}, "neither 0 nor 1"),
        ({"server_crash_round": 4}, "at most federation.rounds"),
        ({"server_crash": 1}, "no such key"),
    ],
)
def test_trouble_that_cannot_be_made_is_refused(scenario: Scenarios, trouble: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        scenario(simulation={"data": DATA, "trouble": trouble})


def test_trouble_with_another_engine_wire_or_secure_sum_is_refused(scenario: Scenarios) -> None:
    scaled = {"poisoned_sites": ["north"], "poison": "scaled-update"}
    federation = {"rounds": 3, "smallest_declared_size": 20}
    for trouble, engine, more in (
        ({"server_crash_round": 1}, "ray", {}),
        (scaled, "local", {"wire": "int8"}),
        ({"drop_out": 0.1}, "local", {"secure_sum": "masked"}),
    ):
        with pytest.raises(SettingsError, match=r"simulation\.trouble"):
            scenario(simulation={"data": DATA, "trouble": trouble, "engine": engine}, federation=federation | more)


def test_a_site_that_is_not_there_is_said(ran: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sites among east, north, south, got 'west'"):
        ran(1, slow_sites=["west"], slow_s=1.0)
    assert not (tmp_path / "run").exists()


def test_drop_out_happens_as_often_as_declared() -> None:
    """Two-sided: 4,000 draws; outside of 0.27 to 0.33 by chance in fewer than one of 10,000 seeds."""
    trouble = Trouble(drop_out=0.3)
    drawn = [trouble.drops_out(f"site {i}", number, seed=1) for i in range(200) for number in range(20)]
    assert 0.27 < np.mean(drawn) < 0.33
    again = [trouble.drops_out(f"site {i}", number, seed=1) for i in range(200) for number in range(20)]
    other = [trouble.drops_out(f"site {i}", number, seed=2) for i in range(200) for number in range(20)]
    assert drawn == again != other


def test_a_site_slower_than_the_deadline_is_too_late_in_every_round() -> None:
    trouble = Trouble(slow_sites=("a",), slow_s=90.0)
    record = {"round": 1, "outcome": "lost", "asked": [1, 2], "accepted": [2], "rejected": []}
    late = trouble_of(trouble, [record], {1: "a", 2: "b"}, None, seed=0, deadline_s=60.0)
    assert late is not None and late.too_late == {"a": [1]} and late.waited_s == 0.0 and late.rounds_lost == 1
    assert "1 answer of 1 site came too late" in sentences(late)[0] and "below the quorum" in sentences(late)[1]
    assert trouble_of(Trouble(), [record], {}, None, seed=0, deadline_s=60.0) is None and sentences(None) == []
