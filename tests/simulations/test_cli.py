"""The command line: expected failures are two lines and an exit code, and nothing is half-written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from server.export.adapter import export as write_adapter
from shared.adapted_model.model import initial_adapter
from shared.study.declaration import Study
from simulations.cli import main

STRANGER = """
[study]
name = "mine"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[federation]
smallest_declared_size = 20
[simulation.data]
source = "table.csv"
{partition}
"""


def sim(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulations", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit code, stdout, stderr."""

    def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["fedvault-sim", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, table: pd.DataFrame) -> Path:
    partition = 'partition = { by = "column", column = "site" }'
    (tmp_path / "mine.toml").write_text(STRANGER.format(model=tiny_bert, partition=partition))
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def test_help_teaches(here: Any, tmp_path: Path) -> None:
    for arguments in ([], ["run"], ["report"], ["scenarios"], ["data", "fetch"]):
        code, out, _ = here(*arguments, "--help", cwd=tmp_path)
        assert code == 0 and "Usage" in out
    taught = here("run", "--help", cwd=tmp_path)[1]
    assert "privacy.epsilon=1" in taught and "A TOML file" in taught, "of arguments too"
    assert all("FEDVAULT_DATA" in here("data", name, "--help", cwd=tmp_path)[1] for name in ("fetch", "list"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.toml"], "absent.toml, which is not there"),
        (["run", "mine.toml", "--set", "simulation.data.source=none.csv"], "none.csv"),
        (["run", "mine.toml", "--set", 'simulation.data.columns={text="words"}'], "Expected a column 'words'"),
        (["run", "mine.toml", "--set", "model.source=bundled:other"], "bundled:minilm"),
        (["run", "mine.toml", "--set", "privacy.epsilon=0"], "privacy.epsilon"),
        (["run", "mine.toml", "--set", "privacy.epsilon=0.0001"], "noise multiplier below"),
        (["run", "mine.toml", "--set", "adapter.rank=99"], "rank=99"),
        (["run", "mine.toml", "--set", "adapter.layers=last:4"], "last:3"),
        (["run", "mine.toml", "--engine", "magic"], "simulation.engine"),
        (["run", "mine.toml", "--set", 'task.labels=["a","b"]'], "Expected labels"),
        (["run", "mine.toml", "--set", "federation.quorum=9"], "federation.quorum=9 usable sites, got 3"),
        (["run", "mine.toml", "--set", "task.max_length=65"], "Expected task.max_length of at most 64"),
        (["plan", "mine.toml", "--set", "task.max_length=65"], "Expected task.max_length of at most 64"),
        (
            ["plan", "mine.toml", "--sizes", "300", "--set", "task.max_length=65"],
            "Expected task.max_length of at most 64",
        ),
        (["report", "absent"], "absent/result.json"),
        (["data", "fetch", "other"], "minilm, "),
    ],
)
def test_every_mistake_is_one_clear_error(folder: Path, here: Any, arguments: list[str], words: str) -> None:
    code, out, err = here(*arguments, cwd=folder)
    assert 2 <= code <= 8 and out == ""
    assert "\nerror: " in "\n" + err and words in err and "Traceback" not in err
    assert not (folder / "runs").exists()


def test_verbose_shows_where(folder: Path) -> None:
    assert "Traceback" in sim("--verbose", "run", "absent.toml", cwd=folder).stderr
    assert "Traceback" not in sim("run", "absent.toml", cwd=folder).stderr


def test_a_mistake_in_the_data_does_not_claim_the_folder(folder: Path, here: Any) -> None:
    quick = ["--set", "federation.rounds=1", "--set", "simulation.arms=['federated']"]
    whole = (folder / "table.csv").read_text()
    (folder / "table.csv").write_text("text,label,site\nhello,yes,north\n")
    assert here("run", "mine.toml", *quick, cwd=folder)[0] != 0
    (folder / "table.csv").write_text(whole)
    assert here("run", "mine.toml", *quick, cwd=folder)[0] == 0


def test_a_finished_run_is_exported_by_name_or_by_default_and_explained_over_rows_that_are_there(
    folder: Path, here: Any, make_study: Callable[..., Study]
) -> None:
    study, run = make_study(), folder / "runs" / "mine"
    write_adapter(study, initial_adapter(study), run / "adapter")
    (run / "result.json").write_text("{}")
    assert here("export", str(run), "by-name", "--merge", cwd=folder)[0] == 0
    assert here("export", str(run), "by-default", cwd=folder)[0] == 0
    code, _, err = here("explain", str(run), "absent.csv", cwd=folder)
    assert code == 3 and f"rows to explain, got absent.csv, which is not there.\nhint:  Looked in {folder}." in err
    names = [{path.name for path in (folder / name).iterdir()} for name in ("by-name", "by-default")]
    assert names[0] == names[1] >= {"config.json", "model.safetensors"}
    code, _, err = here("export", str(run), "both", "--merge", "--onnx", cwd=folder)
    assert code == 2 and "Expected one form, got merged and onnx." in err and not (folder / "both").exists()


@pytest.mark.parametrize("command", [["export", "runs/mine", "out"], ["explain", "runs/mine", "table.csv"]])
def test_a_run_without_a_result_says_how_it_goes_on(folder: Path, here: Any, command: list[str]) -> None:
    code, _, err = here(*command, cwd=folder)
    assert code == 2 and "Expected the folder of a run, runs/mine holds none." in err
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "scenario.json").write_text("{}")
    code, _, err = here(*command, cwd=folder)
    assert code == 2 and "runs/mine holds one without a result yet" in err and "Errno" not in err
    assert "fedvault-sim run SCENARIO --out runs/mine --resume goes on with it." in err


@pytest.mark.integration
def test_run_prints_json_and_report_shows_it_again(folder: Path) -> None:
    quick = ["--set", "federation.rounds=1", "--set", "simulation.arms=['federated']"]
    ran = sim("run", "mine.toml", "--json", *quick, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert {"study_sha256", "rounds", "final", "baselines", "privacy", "bytes", "timing"} <= set(result)
    (folder / "runs" / "mine" / "report.html").unlink()
    shown = sim("report", "runs/mine", cwd=folder)
    assert "Privacy spent" in shown.stdout and (folder / "runs" / "mine" / "report.html").exists()
    assert json.loads(sim("report", "runs/mine", "--json", cwd=folder).stdout) == result


def test_scenarios_are_listed(here: Any, tmp_path: Path) -> None:
    assert "$ fedvault-sim run simulations/scenarios/vader.toml" in here("scenarios", cwd=tmp_path)[1]
    listed = {entry["name"]: entry for entry in json.loads(here("scenarios", "--json", cwd=tmp_path)[1])}
    assert listed["sentiment at four sites"]["evidence"].startswith("real weights, real data")


def test_every_column_of_the_data_that_can_be_fetched_begins_at_one_place(here: Any, tmp_path: Path) -> None:
    rows = json.loads(here("data", "list", "--json", cwd=tmp_path)[1])
    lines = here("data", "list", cwd=tmp_path)[1].splitlines()
    for column in ("kind", "licence", "about"):
        starts = [line.rindex(f"  {row[column]}") for line, row in zip(lines, rows, strict=True)]
        assert len(set(starts)) == 1, column
