"""The list of commands: help in a moment, errors without traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.app import COMMANDS, cli, main
from server.settings import Home
from shared.errors import SettingsError
from tests.support.other_user import closed_to_this_user

HEAVY = ("torch", "transformers", "peft", "opacus", "flwr", "sqlalchemy", "uvicorn", "pandas", "server.flower")
HELP = f"""
import sys
from typer.testing import CliRunner
from server.cli.app import COMMANDS, cli
for command in COMMANDS:
    assert CliRunner().invoke(cli, [command, "--help"]).exit_code == 0, command
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def test_help_of_every_command_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("entry", [["-m", "server"], ["-c", "from server.cli import main; main()"]])
def test_both_entry_points_list_the_commands(entry: list[str]) -> None:
    done = subprocess.run([sys.executable, *entry, "--help"], capture_output=True, text=True, check=True)
    assert all(f" {command} " in done.stdout for command in COMMANDS) and " process " not in done.stdout


def test_an_unknown_command_and_a_missing_option_exit_with_2() -> None:
    assert CliRunner().invoke(cli, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(cli, ["init"]).exit_code == 2


COMMANDS_OF_AN_OPERATOR = [
    ["status"],
    ["status", "--check"],
    ["halt"],
    ["logs"],
    ["logs", "r-1"],
    ["nodes"],
    ["runs"],
    ["stop", "r-1"],
    ["revoke", "north"],
    ["start", "--detach"],
]


@pytest.mark.parametrize("command", COMMANDS_OF_AN_OPERATOR, ids=" ".join)
def test_another_users_server_is_neither_stopped_nor_taken_for_one_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    home = ["--home", str(tmp_path / "federation")]
    assert CliRunner().invoke(cli, ["init", "--host", "localhost", *home]).exit_code == 0
    if command[0] != "start":
        CliRunner().invoke(cli, [*command, *home])  # what it needs of its libraries is loaded while they can be read
    monkeypatch.setattr(sys, "argv", ["fedvault-server", *command, *home])
    with closed_to_this_user(tmp_path / "federation"), pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    assert ended.value.code == 11 and written.out == "" and "Type this as the user" in written.err
    assert "Traceback" not in written.err


@pytest.mark.parametrize("command", [["halt"], ["logs"], ["status"]], ids=" ".join)
def test_a_server_that_is_not_there_is_another_answer_than_one_that_does_not_run(
    tmp_path: Path, command: list[str]
) -> None:
    done = CliRunner().invoke(cli, [*command, "--home", str(tmp_path / "elsewhere")])
    assert isinstance(done.exception, SettingsError) and "fedvault-server init" in done.exception.hint


def test_a_servers_folder_that_was_there_already_becomes_its_users_alone(tmp_path: Path) -> None:
    home = tmp_path / "federation"
    for folder in (home, home / "keys"):
        folder.mkdir()
        folder.chmod(0o755)
    assert CliRunner().invoke(cli, ["init", "--host", "a", "--home", str(home)]).exit_code == 0
    Home(home).secret()
    assert [path.stat().st_mode & 0o077 for path in (home, home / "keys")] == [0, 0]


def test_metrics_are_on_loopback_unless_init_is_asked_for_another_address(tmp_path: Path) -> None:
    listens = list[str]()
    for name, options in (("one", []), ("other", ["--metrics-listen", "0.0.0.0"])):  # noqa: S104 - as in a container
        home = tmp_path / name
        done = CliRunner().invoke(cli, ["init", "--host", "a", "--home", str(home), *options])
        assert done.exit_code == 0, done.output
        listens.append(Home(home).settings().metrics_listen)
    assert listens == ["127.0.0.1", "0.0.0.0"]  # noqa: S104
