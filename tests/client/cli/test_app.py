"""Every command: its help, its mistakes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.other_user import closed_to_this_user
from tests.support.paths import ROOT

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "study.toml", "--dataset", "nobody"], "node.toml (ward, renamed)"),
        (["show", "absent.toml", "--dataset", "ward"], "absent.toml"),
        (["withdraw", "nobody", "--yes"], "node.toml (ward, renamed)"),
        (["ledger", "--config", "absent.toml"], "fedvault-node init"),
    ],
)
def test_mistakes_are_one_clear_error(
    node: Command, study: Callable[..., str], arguments: list[str], words: str
) -> None:
    study()
    code, out, err = node(*arguments)
    assert code != 0 and out == "" and words in err and "Traceback" not in err


def test_help_teaches(node: Command) -> None:
    for command in ([], ["init"], ["register"], ["show"], ["approve"], ["ledger"], ["withdraw"]):
        assert "Usage" in node(*command, "--help")[1]


def test_help_loads_no_model() -> None:
    code = """
import sys
from typer.testing import CliRunner
from client.cli import cli
for command in ([], *([command.name or command.callback.__name__] for command in cli.registered_commands)):
    assert CliRunner().invoke(cli, [*command, "--help"]).exit_code == 0
print(*sys.modules)
"""
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"torch", "transformers", "opacus", "pandas", "flwr", "grpc"}


def test_nothing_is_downloaded_from_the_first_import_on() -> None:
    code = """
import sys
from typer.testing import CliRunner
import client.cli
assert "huggingface_hub" not in sys.modules
CliRunner().invoke(client.cli.cli, ["vault", "--config", "absent.toml"])
import huggingface_hub.constants, transformers.utils.hub
print(huggingface_hub.constants.HF_HUB_OFFLINE, transformers.utils.hub.is_offline_mode())
"""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["True", "True"]


def test_status_is_sentences_and_is_watched_or_read_by_a_program(node: Command, study: Callable[..., str]) -> None:
    study()
    code, out, err = node("status")
    assert (code, err) == (0, "") and out.startswith("The node does not run. Start it:") and "{" not in out
    assert node("status", "--check")[0] == 1
    assert json.loads(node("status", "--json")[1])["state"] == "stopped"
    code, _, err = node("status", "--watch", "--json")
    assert code == 2 and "--watch or --json" in err


@pytest.mark.guarantee("no figure of local metrics and no name of a run is in it.")
@pytest.mark.parametrize("deployment", ["", "vault"])
def test_what_watches_a_node_reads_its_health_and_no_figure(
    node: Command, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployment: str
) -> None:
    study()
    measured = {"time": "2026-11-29T12:00:00", "run": "r-1", "round": 3, "accuracy": 0.8125}
    (tmp_path / "node").mkdir(mode=0o700)
    (tmp_path / "node" / "metrics.jsonl").write_text(json.dumps(measured) + "\n")
    monkeypatch.setenv("FEDVAULT_DEPLOYMENT", deployment)
    assert "accuracy 0.8125" in node("status")[1], "for the operator"
    for command in (("status", "--check"), ("status", "--check", "--json")):
        code, out, err = node(*command)
        assert code in (1, 8) and out and not any(word in out + err for word in ("0.8125", "accuracy", "r-1"))


ANOTHER_USERS = [
    ("status",),
    ("status", "--check"),
    ("stop",),
    ("logs",),
    ("ledger",),
    ("studies",),
    ("show", "r-1"),
    ("approve", "r-1"),
    ("models",),
    ("register", "ward"),
    ("withdraw", "ward", "--yes"),
    ("backup", "backup.tgz"),
    ("leave", "--yes"),
    ("start",),
]


@pytest.mark.parametrize("command", ANOTHER_USERS, ids=" ".join)
def test_another_users_node_is_neither_stopped_nor_taken_for_one_that_does_not_run(
    node: Command, study: Callable[..., str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    study()
    assert node("init")[0] == 0
    node(*command)  # what it needs of its libraries is loaded while they can be read
    with closed_to_this_user(tmp_path / "node"):
        code, out, err = node(*command)
    assert (code, out) == (11, "") and err.startswith("error: Expected ") and "to be open to this user" in err
    assert "Type this as the user" in err and "Traceback" not in err


def test_a_node_without_logs_says_so(node: Command, study: Callable[..., str]) -> None:
    study()
    code, out, err = node("logs")
    assert (code, out) == (1, "") and "Expected logs in" in err and "fedvault-node start" in err
