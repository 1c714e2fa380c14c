"""Whole runs over the tiny BERT: every arm, both engines, cut and resumed."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from server.export.adapter import load_finished
from server.rounds.checkpoints import Checkpoints
from server.rounds.round import Reason
from shared.adapted_model.measured import MEASURED
from shared.adapted_model.model import layout_of
from shared.errors import RunError, SettingsError
from simulations.arm_training import evaluated_together
from simulations.experiment.arms import arm_folder, trained_arms
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Site, reopen
from simulations.progress import SilentProgress
from simulations.results.result import Result, read_result
from simulations.run import Run
from tests.support.tiny_run import declaration, packed, run_of

pytestmark = pytest.mark.integration
Scenarios = Callable[..., Scenario]


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One whole run, shared by the tests that only look."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    tiny, table = request.getfixturevalue("tiny_bert"), request.getfixturevalue("table")
    return folder, run_of(Scenario.model_validate(declaration(tiny)), folder, table).execute()


def test_every_arm_is_there_with_its_size_cost_and_quality(finished: tuple[Path, Result]) -> None:
    _, result = finished
    alone = next(name for name in result.arms if name.startswith("single-site:"))
    trained = ["head-federated", alone, "federated", "without-privacy"]
    assert list(result.arms) == ["majority", "untrained-head", *trained]
    assert set(result.baselines) == set(result.arms) - {"federated"}
    assert result.arms["federated"].rows == sum(site.train for site in result.data.values())
    assert result.arms["without-privacy"].epsilon is None and not result.arms["without-privacy"].private
    assert [entry.round for entry in result.rounds] == [1, 2, 3]
    assert all(entry.accepted == 3 and entry.evaluation is not None for entry in result.rounds)
    assert result.rounds[-1].evaluation == result.final.model_copy(update={"metrics_by_site": {}})


def test_the_majority_class_says_that_it_counts_training_labels(finished: tuple[Path, Result]) -> None:
    majority = finished[1].arms["majority"]
    assert not majority.private and majority.epsilon is None
    assert "training labels and is not private" in majority.note


def test_every_other_arm_is_compared_over_the_same_held_out_records(finished: tuple[Path, Result]) -> None:
    _, result = finished
    assert set(result.differences) == set(result.baselines)
    evaluated = sum(site.evaluated or 0 for site in result.data.values())
    for name, one in result.differences.items():
        assert one.value == pytest.approx(result.final.value - result.arms[name].quality.value)
        assert one.low <= one.value <= one.high and (one.unit, one.units) == ("record", evaluated)


def test_what_others_do_is_run_beside_it_at_the_same_epsilon(
    tmp_path: Path, tiny_bert: Path, table: pd.DataFrame
) -> None:
    declared = declaration(tiny_bert)
    arms = ("textbook", "federated", "pooled", "head-without-privacy")
    declared["simulation"]["arms"] = arms
    declared["federation"]["rounds"] = 1
    result = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert tuple(result.arms) == arms
    everyone = sum(site.train for site in result.data.values())
    assert all(arm.rows == everyone and arm.steps == 4 for arm in result.arms.values())
    assert result.arms["textbook"].epsilon == result.arms["pooled"].epsilon == result.arms["federated"].epsilon
    assert result.arms["head-without-privacy"].epsilon is None


def test_an_unclipped_reference_is_run_by_its_own_rates(
    finished: tuple[Path, Result], tmp_path: Path, tiny_bert: Path, table: pd.DataFrame
) -> None:
    declared = declaration(tiny_bert)
    declared["simulation"] |= {"arms": ["federated", "without-privacy"], "reference": "unclipped"}
    plain = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute().arms["without-privacy"]
    assert plain.quality.metrics != {} and not plain.private
    checkpoints = [arm_folder(folder, "without-privacy") / "checkpoints" for folder in (tmp_path / "run", finished[0])]
    ours, theirs = (next(folder.glob("round-00003.*safetensors")).read_bytes() for folder in checkpoints)
    assert ours != theirs


def test_spent_epsilon_is_the_studys_and_never_above_it(finished: tuple[Path, Result]) -> None:
    for spent in finished[1].privacy.values():
        assert 7.9 < spent.epsilon_rdp <= 8.0 and spent.steps == 12
        assert spent.epsilon_prv is not None and spent.epsilon_prv < spent.epsilon_rdp
        assert spent.seeded_noise


def test_bytes_are_the_packed_adapter_and_little_else(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    floats = 2 * 32 * 8 + 2 * 32 + 2
    assert 4 * floats <= result.bytes.up_per_node_round <= 4 * floats + 200
    assert result.bytes.down_per_node_round == result.bytes.up_per_node_round
    assert result.bytes.full_lora_up is not None
    assert result.bytes.full_model_up > result.bytes.full_lora_up > 4 * floats
    assert not (folder / "cache").exists()


def test_a_study_in_int8_sends_a_byte_for_each_value_and_little_else(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = declaration(tiny_bert)
    declared["federation"] = declared["federation"] | {"wire": "int8"}
    declared["simulation"] = declared["simulation"] | {"arms": ["federated", "without-privacy"]}
    result = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    floats = finished[1].bytes.up_per_node_round // 4
    assert result.bytes.up_by_wire == finished[1].bytes.up_by_wire
    assert result.bytes.up_per_node_round == result.bytes.up_by_wire["int8"] == floats + 40
    assert result.bytes.down_per_node_round == finished[1].bytes.down_per_node_round
    assert all(entry.accepted == 3 for entry in result.rounds) and packed(tmp_path / "run") != packed(finished[0])
    without = (entry.arms["without-privacy"].quality for entry in (result, finished[1]))
    assert next(without) == next(without)


@pytest.mark.parametrize("whitening", [False, True])
def test_the_head_alone_has_the_same_batches_and_noise_as_the_study_beside_it(
    tmp_path: Path, tiny_bert: Path, table: pd.DataFrame, whitening: bool
) -> None:
    """With an adapter that hardly moves and hardly shares the clipping norm, both train the same head."""
    declared = declaration(tiny_bert)
    declared["training"] = declared["training"] | {"adapter_learning_rate": 1e-6, "whitening": whitening}
    declared["privacy"] = declared["privacy"] | {"head_share": 0.999999}
    declared["simulation"]["arms"] = ("head-federated", "federated")
    scenario = Scenario.model_validate(declared)
    run_of(scenario, tmp_path / "run", table).execute()
    head, both = trained_arms(scenario, (Site(0, "a", 100, 60, 20, 0, 0, 60),))
    learned = []
    for arm in (head, both):
        kept = Checkpoints(arm_folder(tmp_path / "run", arm.name) / "checkpoints")
        state = kept.latest(study_sha256=arm.study.sha256, study_run=arm.name)
        assert state is not None
        parts, start = {}, 0
        for name, shape in layout_of(arm.study).tensors:
            parts[name] = state.adapter[start : (start := start + int(np.prod(shape)))]
        learned.append(parts)
    for name, alone in learned[0].items():
        largest = float(np.abs(alone).max())
        assert largest > (1e-3 if name.startswith(MEASURED) else 0.1)
        assert learned[1][name] == pytest.approx(alone, abs=1e-2 * largest)


def test_a_study_that_whitens_runs_beside_its_references_and_is_resumed_to_the_same_bytes(
    tmp_path: Path, tiny_bert: Path, table: pd.DataFrame
) -> None:
    declared = declaration(tiny_bert)
    declared["training"] = declared["training"] | {"whitening": True}
    declared["simulation"]["arms"] = ("untrained-head", "federated", "pooled", "without-privacy")
    scenario = Scenario.model_validate(declared)
    result = run_of(scenario, tmp_path / "run", table).execute()
    assert all(entry.accepted == 3 for entry in result.rounds)
    assert result.privacy["north"].steps == 12  # the round that measures is paid for like the others
    for number in (2, 3):  # what a run that was cut off after the first round goes on from
        for kept in (arm_folder(tmp_path / "run", "federated") / "checkpoints").glob(f"round-{number:05d}.*"):
            kept.unlink()
    before = packed(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    run_of(scenario, tmp_path / "run", table, resume=True).execute()
    assert packed(tmp_path / "run") == before
    head = load_file(tmp_path / "run" / "adapter" / "head.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in head.items()} == {"weight": (2, 32), "bias": (2,)}


def test_only_arms_of_several_sites_divide_by_a_typical_size(scenario: Scenarios) -> None:
    wanted = [
        "head-federated",
        "single-site",
        "textbook",
        "federated",
        "pooled",
        "head-without-privacy",
        "without-privacy",
    ]
    declared = scenario(federation={"typical_size": 70}, simulation={"arms": wanted})
    sites = tuple(Site(number, name, 100, 60, 20, 0, 0, 60) for number, name in enumerate("ab"))
    found = {arm.name.partition(":")[0]: arm.study.federation.typical_size for arm in trained_arms(declared, sites)}
    assert {name for name, size in found.items() if size is None} == {"single-site", "textbook", "pooled"}
    assert len(found) == len(wanted)


def test_only_arms_with_the_noise_of_sgd_are_rounded(scenario: Scenarios) -> None:
    wanted = ["head-federated", "textbook", "federated", "pooled", "head-without-privacy", "without-privacy"]
    declared = scenario(federation={"wire": "int8"}, simulation={"arms": wanted})
    rounded = {arm.name for arm in trained_arms(declared, ()) if arm.study.federation.wire == "int8"}
    assert rounded == {"head-federated", "federated", "pooled"}


def test_the_recipe_of_tutorials_clips_one_vector_at_length_one(scenario: Scenarios) -> None:
    simulation, training = {"arms": ["textbook", "federated"]}, {"whitening": True}
    textbook, ours = trained_arms(scenario(simulation=simulation, privacy={"clip_norm": 3.0}, training=training), ())
    assert ours.study.training.whitening and not textbook.study.training.whitening
    assert ours.study.privacy.head_share == 0.8 and textbook.study.privacy.head_share is None
    assert (textbook.study.privacy.clipping, textbook.study.privacy.clip_norm) == ("flat", 1.0)
    assert textbook.study.privacy.epsilon == ours.study.privacy.epsilon


def test_the_exported_adapter_classifies(finished: tuple[Path, Result]) -> None:
    assert set(load_finished(finished[0] / "adapter").classify(["good word1", "bad word2"])) <= {"no", "yes"}


def test_result_is_read_back_and_damage_is_said(finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder, result = finished
    assert read_result(folder / "result.json") == result
    (tmp_path / "result.json").write_text(json.dumps({"rounds": []}))
    with pytest.raises(SettingsError, match="Expected a result file"):
        read_result(tmp_path / "result.json")
    with pytest.raises(SettingsError, match="got nothing"):
        read_result(tmp_path / "absent.json")


def test_a_folder_is_claimed_by_one_scenario(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame
) -> None:
    folder, result = finished
    same, other = declaration(tiny_bert), declaration(tiny_bert)
    other["privacy"] = {"epsilon": 1.0}
    with pytest.raises(SettingsError, match="holds a run"):
        run_of(Scenario.model_validate(same), folder, table)
    with pytest.raises(SettingsError, match=r"got a changed one: privacy.epsilon was .* and is 1.0"):
        run_of(Scenario.model_validate(other), folder, table, resume=True)
    same["simulation"] = same.get("simulation", {}) | {"processes": 1}
    assert run_of(Scenario.model_validate(same), folder, table, resume=True).execute() == result


class StopAt(SilentProgress):
    """Presses Ctrl-C after some rounds."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def finished(self, record: Any, evaluation: Any) -> None:
        super().finished(record, evaluation)
        self.left -= record is not None
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("rounds", [2, 8])
def test_a_run_cut_anywhere_resumes_to_the_same_bytes(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path, rounds: int
) -> None:
    scenario = Scenario.model_validate(declaration(tiny_bert))
    cut = run_of(scenario, tmp_path / "run", table)
    cut.progress = StopAt(rounds)
    with pytest.raises(KeyboardInterrupt):
        cut.execute()
    assert not (tmp_path / "run" / "result.json").exists()
    result = run_of(scenario, tmp_path / "run", table, resume=True).execute()
    assert packed(tmp_path / "run") == packed(finished[0])
    assert result.final == finished[1].final and result.privacy == finished[1].privacy
    assert result.differences == finished[1].differences


def test_performance_settings_change_no_bit_of_the_batches_and_the_noise(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = declaration(tiny_bert) | {"performance": {"activation_cache": False}}
    declared["simulation"] = declared["simulation"] | {"processes": 1, "arms": ["federated"]}
    result = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert result.study_sha256 == finished[1].study_sha256
    assert packed(tmp_path / "run") == packed(finished[0])


def test_small_sites_are_evaluated_together_and_each_keeps_its_own_figures(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = evaluated_together(reopen(finished[0] / "prepared"))
    monkeypatch.setattr("simulations.arm_training.EVALUATED_TOGETHER", 1)
    assert len(together) == 1 and [(index,) for index in together[0]] == evaluated_together(
        reopen(finished[0] / "prepared")
    )
    declared = declaration(tiny_bert)
    declared["simulation"]["arms"] = ["majority", "federated"]
    result = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert result.final == finished[1].final
    assert result.arms["majority"].quality == finished[1].arms["majority"].quality
    assert len(set(result.final.per_site.values())) > 1, "else sites could be mixed up unseen"


def test_a_site_that_no_cohort_asks_computes_nothing(tiny_bert: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    declared = declaration(tiny_bert)
    declared["federation"] |= {"cohort": 1, "rounds": 1, "quorum": 1}
    declared["simulation"] |= {"arms": ["federated"]}
    cache = tmp_path / "cache"
    source = tmp_path / "table.csv"
    table.to_csv(source, index=False)
    run = Run(Scenario.model_validate(declared), source, tmp_path / "run", SilentProgress(), cache=cache)
    run.open(resume=False)
    (tmp_path / "run" / "cache").symlink_to(cache)  # as a run leaves it whose shared cache was then deleted
    (only,) = run.execute().rounds
    assert only.accepted == 1
    assert len(list(cache.glob("*.f32"))) == 2, "of the site that was asked, and of what is evaluated"


def test_ray_gives_the_same_numbers(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = declaration(tiny_bert)
    declared["simulation"] = declared["simulation"] | {"engine": "ray", "arms": ["federated"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray and Flower's engine leave sockets and deprecations behind
        result = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert packed(tmp_path / "run") == packed(finished[0])
    assert result.final == finished[1].final and result.privacy == finished[1].privacy


@pytest.mark.slow
@pytest.mark.integration
def test_a_ray_cluster_gives_the_same_numbers(
    finished: tuple[Path, Result], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = declaration(tiny_bert)
    declared["simulation"] = declared["simulation"] | {"engine": "ray", "arms": ["federated"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            scenario = Scenario.model_validate(declared)
            run_of(scenario, tmp_path / "run", table, ray_address=cluster.address).execute()
        finally:
            cluster.shutdown()
    assert packed(tmp_path / "run") == packed(finished[0])


def test_an_arm_without_any_update_is_an_error(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.rounds.update_filter._implausible", lambda *_: Reason.NORM)
    declared = declaration(tiny_bert)
    declared["federation"] = {"rounds": 1, "smallest_declared_size": 20}
    declared["simulation"] = declared["simulation"] | {"arms": ["federated"]}
    with pytest.raises(RunError, match="to aggregate a round, got none; sites answered: nothing"):
        run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()


def test_a_fault_after_training_never_costs_the_result_and_is_named(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise KeyError("a figure")

    for name in ("export", "differences", "write_card"):
        monkeypatch.setattr(f"simulations.run.{name}", fails)
    declared = declaration(tiny_bert)
    declared["federation"] = {"rounds": 1, "smallest_declared_size": 20}
    declared["simulation"] = declared["simulation"] | {"arms": ["federated"]}
    result = run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    named = [warning for warning in result.warnings if "could not be made (KeyError: 'a figure')" in warning]
    assert [warning.split(" could")[0] for warning in named] == [
        "The exported adapter",
        "The differences between arms",
        "The model card",
    ]
    assert read_result(tmp_path / "run" / "result.json").warnings == result.warnings and result.differences == {}
