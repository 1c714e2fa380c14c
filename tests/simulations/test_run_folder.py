"""A run's folder: whose it is, and what a run that cannot begin or is stopped leaves."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shared.errors import RunError, SettingsError
from shared.study.declaration import Study
from simulations.experiment.scenario import Scenario
from tests.support.tiny_run import declaration, run_of

pytestmark = pytest.mark.integration


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


def test_a_run_is_not_resumed_on_other_data(tiny_bert: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    scenario, folder = Scenario.model_validate(declaration(tiny_bert)), tmp_path / "run"
    run_of(scenario, folder, table)
    run_of(scenario, folder, table, resume=True)
    other = table.assign(label=[*table.label[1:], table.label[0]])
    with pytest.raises(SettingsError, match=r"the data that .*run was started with, got other contents of simulation"):
        run_of(scenario, folder, other, resume=True)
    (folder / "source.json").unlink()
    run_of(scenario, folder, other, resume=True)
    assert not (folder / "source.json").exists(), "what a run from before began with is not known"


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("test", {"test": "own.csv"}),
        ("validation", {"validation": "own.csv", "test": "table.csv"}),
        ("partition.file", {"partition": {"by": "file", "file": "own.csv"}}),
    ],
)
def test_files_of_the_datas_own_splits_count_as_data(
    key: str, data: dict[str, Any], tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared, own = declaration(tiny_bert), tmp_path / "own.csv"
    declared["simulation"]["data"] |= data
    own.write_text("row,site\n1,north\n")
    scenario = Scenario.model_validate(declared)
    run_of(scenario, tmp_path / "run", table)
    own.write_text("row,site\n1,south\n")
    with pytest.raises(SettingsError, match=rf"got other contents of simulation\.data\.{key}\."):
        run_of(scenario, tmp_path / "run", table, resume=True)


def test_a_run_is_resumed_with_other_threads_but_not_with_another_precision(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    def declared(**performance: Any) -> Scenario:
        return Scenario.model_validate(declaration(tiny_bert) | {"performance": performance})

    folder = tmp_path / "run"
    run_of(declared(), folder, table)
    fast = {"threads": 3, "activation_cache": False, "micro_batch_tokens": 64, "activation_checkpointing": True}
    run_of(declared(**fast), folder, table, resume=True)
    for key, value in (("precision", "bfloat16"), ("activation_storage", "float16")):
        with pytest.raises(SettingsError, match=rf"performance\.{key} was 'float32' and is '{value}'"):
            run_of(declared(**{key: value}), folder, table, resume=True)
    written = json.loads((folder / "scenario.json").read_text())
    del written["performance"]
    (folder / "scenario.json").write_text(json.dumps(written))
    run_of(declared(precision="bfloat16"), folder, table, resume=True)
    assert "performance" not in json.loads((folder / "scenario.json").read_text()), "runs from before did not write it"


def test_a_site_that_is_not_there_leaves_the_folder_free_for_the_mended_scenario(
    tiny_bert: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = declaration(tiny_bert)
    declared["simulation"] |= {"arms": ["single-site", "federated"], "single_site": "nowhere"}
    with pytest.raises(SettingsError, match="nowhere"):
        run_of(Scenario.model_validate(declared), tmp_path / "run", table).execute()
    assert not (tmp_path / "run").exists()


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
