"""Whole runs over the tiny BERT: every arm, both engines, cut and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from safetensors.numpy import load_file

import simulations
from server.export.adapter import load_finished
from server.rounds.checkpoints import Checkpoints
from server.rounds.update_filter import Reason
from shared.adapted_model.measured import MEASURED
from shared.adapted_model.model import layout_of
from shared.errors import RunError, SettingsError
from shared.study.declaration import Study
from simulations.arm_training import evaluated_together
from simulations.engines.local import LocalEngine
from simulations.engines.ray import _join
from simulations.experiment.arms import arm_folder, trained_arms
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Site, reopen
from simulations.progress import SilentProgress
from simulations.results.result import Result, read_result
from simulations.run import Run

pytestmark = pytest.mark.integration
Scenarios = Callable[..., Scenario]


def run_of(
    scenario: Scenario, folder: Path, table: pd.DataFrame, *, resume: bool = False, ray_address: str | None = None
) -> Run:
    source = folder.parent / "table.csv"
    source.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(source, index=False)
    prepared = Run(scenario, source, folder, SilentProgress(), ray_address=ray_address)
    prepared.open(resume=resume)
    return prepared


def packed(folder: Path) -> bytes:
    return (folder / "adapter" / "packed.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One whole run, shared by the tests that only look."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    tiny, table = request.getfixturevalue("tiny_bert"), request.getfixturevalue("table")
    return folder, run_of(Scenario.model_validate(declaration(tiny)), folder, table).execute()


def declaration(tiny: Path) -> dict[str, Any]:
    return {
        "study": {"name": "whole"},
        "model": {"source": str(tiny)},
        "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
        "adapter": {"layers": "last:1"},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.3},
        "training": {"local_steps": 4},
        "federation": {"rounds": 3, "smallest_declared_size": 20},
        "simulation": {
            "seed": 7,
            "data": {"source": "table.csv", "partition": {"by": "column", "column": "site"}},
        },
    }


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


def test_a_folder_of_other_files_is_left_alone(tiny_bert: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis" / "chapter.tex"
    thesis.parent.mkdir()
    thesis.write_text("Once upon a time")
    with pytest.raises(SettingsError, match=r"a new folder or a run's, .*thesis holds other files, as chapter.tex"):
        run_of(Scenario.model_validate(declaration(tiny_bert)), thesis.parent, table)
    assert [path.name for path in thesis.parent.iterdir()] == ["chapter.tex"]


def test_one_process_at_a_time_goes_on_with_a_run(tiny_bert: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    scenario, folder = Scenario.model_validate(declaration(tiny_bert)), tmp_path / "run"
    first = run_of(scenario, folder, table)
    with pytest.raises(RunError, match=r"Expected .*run for this process alone, another one"):
        run_of(scenario, folder, table, resume=True)
    del first
    run_of(scenario, folder, table, resume=True)


def test_an_audit_in_the_folder_and_what_a_cut_leaves_stop_no_run(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("audit.json", ".scenario.json.7.9.new"):
        (folder / name).write_text("{}")
    run_of(Scenario.model_validate(declaration(tiny_bert)), folder, table)
    assert (folder / "audit.json").exists()


def test_a_damaged_folder_is_free_again_once_that_was_told(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    scenario, folder = Scenario.model_validate(declaration(tiny_bert)), tmp_path / "run"
    run_of(scenario, folder, table)
    (folder / "timing.json").write_text("{")
    with pytest.raises(ValueError, match="property name") as told:
        run_of(scenario, folder, table, resume=True)
    (folder / "timing.json").unlink()
    run_of(scenario, folder, table, resume=True)
    assert told.tb is not None, "whoever keeps the traceback keeps the first one's folder"


def test_a_run_from_before_arms_had_other_names_is_not_resumed(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    scenario, kept = Scenario.model_validate(declaration(tiny_bert)), tmp_path / "run" / "scenario.json"
    run_of(scenario, tmp_path / "run", table)
    kept.write_text(kept.read_text().replace('"single-site"', '"site-alone"').replace('"single_site":', '"alone":'))
    with pytest.raises(SettingsError, match=r"a changed one: .*site-alone.*simulation.alone was 'largest' and is None"):
        run_of(scenario, tmp_path / "run", table, resume=True)


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


def test_a_site_that_is_not_there_leaves_the_folder_free_for_the_mended_scenario(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = declaration(tiny_bert)
    declared["simulation"] |= {"arms": ["single-site", "federated"], "single_site": "nowhere"}
    with pytest.raises(SettingsError, match="nowhere"):
        run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert not (tmp_path / "run").exists()


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


def test_an_arm_that_the_model_cannot_carry_out_is_refused_before_anything_is_trained(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(study: Study) -> Any:
        if study.adapter.method == "lora":
            raise SettingsError("Expected a model type in the table of targets, got 'odd'.")

    monkeypatch.setattr("simulations.run.layout_of", unfit)
    monkeypatch.setattr("simulations.run.ArmTraining.train", lambda *_: pytest.fail("trained"))
    declared = declaration(tiny_bert)
    declared["simulation"] = declared["simulation"] | {"arms": ["federated", "textbook"]}
    with pytest.raises(SettingsError, match="'textbook' is none: Expected a model type"):
        run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert not (tmp_path / "run").exists(), "the folder is free again"


def test_a_sites_name_may_hold_anything(tiny_bert: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    hostile = {"north": "../../up", "south": "[/red]<b>", "east": "NUL\u202e " + "x" * 300}
    declared = declaration(tiny_bert)
    declared["federation"] = {"rounds": 1, "smallest_declared_size": 20}
    declared["simulation"] = declared["simulation"] | {"arms": ["single-site", "federated"], "single_site": "every"}
    renamed = table.assign(site=table.site.replace(hostile))
    result = run_of(Scenario.model_validate(declared), tmp_path / "deep" / "er" / "run", renamed).execute()
    assert set(result.privacy) == set(hostile.values())
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if "run" not in path.parts}
    assert written == {"deep", "deep/er", "deep/er/table.csv"}
    assert {path.parent.name for path in tmp_path.rglob("arm.json")} == {p.name for p in tmp_path.glob("**/arms/*")}


def test_ctrl_c_says_how_to_resume(tiny_bert: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "mine.toml").write_text(toml_of(tiny_bert))
    command = [sys.executable, "-m", "simulations", "run", "mine.toml", "--out", "out", "--set", "study.name=a b"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell that starts these tests in the background has them ignore Ctrl-C, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    waited_until = time.monotonic() + 300
    while not list(tmp_path.glob("out/arms/*/checkpoints/round-*[1-9].json")) and time.monotonic() < waited_until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in said
    assert "fedvault-sim run mine.toml --out out --resume --set 'study.name=a b'" in said.replace("\n", "")
    resumed = subprocess.run([*command, "--resume", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"][-1]["round"] == 60


def toml_of(tiny: Path) -> str:
    return f"""
[study]
name = "whole"
[model]
source = "{tiny}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[training]
local_steps = 2
[federation]
rounds = 60
smallest_declared_size = 20
[simulation]
arms = ["federated"]
[simulation.data]
source = "table.csv"
partition = {{ by = "column", column = "site" }}
"""
