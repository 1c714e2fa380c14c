"""The command line: expected failures are two lines and an exit code, and nothing is half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

STRANGER = """
[study]
name = "mine"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
[federation]
smallest_declared_size = 20
[simulation.data]
source = "table.csv"
{partition}
"""


def sim(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulations", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, table: pd.DataFrame) -> Path:
    partition = 'partition = { by = "column", column = "site" }'
    (tmp_path / "mine.toml").write_text(STRANGER.format(model=tiny_bert, partition=partition))
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


def test_help_teaches() -> None:
    for arguments in ([], ["run"], ["report"], ["scenarios"], ["data", "fetch"]):
        found = sim(*arguments, "--help")
        assert found.returncode == 0 and "Usage" in found.stdout
    assert "--set privacy.epsilon=1" in sim("run", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.toml"], "absent.toml, which is not there"),
        (["run", "mine.toml", "--set", "simulation.data.source=none.csv"], "none.csv"),
        (["run", "mine.toml", "--set", "simulation.data.text_column=words"], "Expected a column 'words'"),
        (["run", "mine.toml", "--set", "model.source=embedded:other"], "embedded:minilm"),
        (["run", "mine.toml", "--set", "privacy.epsilon=0"], "privacy.epsilon"),
        (["run", "mine.toml", "--set", "privacy.epsilon=0.0001"], "noise multiplier below"),
        (["run", "mine.toml", "--set", "adapter.rank=99"], "rank=99"),
        (["run", "mine.toml", "--set", "adapter.layers=last:4"], "last:3"),
        (["run", "mine.toml", "--engine", "magic"], "simulation.engine"),
        (["run", "mine.toml", "--set", 'task.labels=["a","b"]'], "Expected labels"),
        (["run", "mine.toml", "--set", "federation.quorum=9"], "federation.quorum=9 usable sites, got 3"),
        (["report", "absent"], "absent/result.json"),
        (["data", "fetch", "other"], "minilm, vader"),
    ],
)
def test_every_mistake_is_one_clear_error(folder: Path, arguments: list[str], words: str) -> None:
    found = sim(*arguments, cwd=folder)
    assert 2 <= found.returncode <= 8 and found.stdout == ""
    assert found.stderr.startswith("error: ") and words in found.stderr and "Traceback" not in found.stderr
    assert not list(folder.glob("runs/*/result.json"))


def test_verbose_shows_where(folder: Path) -> None:
    assert "Traceback" in sim("--verbose", "run", "absent.toml", cwd=folder).stderr


def test_a_mistake_in_the_data_does_not_claim_the_folder(folder: Path) -> None:
    (folder / "table.csv").write_text("text,label\nhello,yes\n")
    assert sim("run", "mine.toml", cwd=folder).returncode != 0
    pd.DataFrame({"text": ["good word1", "bad"] * 90, "label": ["yes", "no"] * 90, "site": list("abc") * 60}).to_csv(
        folder / "table.csv", index=False
    )
    quick = ["--set", "federation.rounds=1", "--set", "simulation.arms=['federated']"]
    assert sim("run", "mine.toml", *quick, cwd=folder).returncode == 0


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


def test_scenarios_are_listed() -> None:
    assert "vader.toml" in sim("scenarios").stdout
    assert [entry["name"] for entry in json.loads(sim("scenarios", "--json").stdout)] == ["sentiment at four sites"]
