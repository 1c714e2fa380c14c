"""Every command: its help, its mistakes."""

from collections.abc import Callable

import pytest

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
