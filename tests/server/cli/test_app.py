"""The list of commands: help in a moment, errors without traceback."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from server.cli.app import COMMANDS, cli

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
