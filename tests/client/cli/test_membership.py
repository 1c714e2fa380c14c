"""Setting a node up."""

import json
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., tuple[int, str, str]]


def test_init_writes_a_template_and_an_empty_ledger_and_changes_nothing_twice(node: Command, tmp_path: Path) -> None:
    assert node("init")[0] == 0
    before = (tmp_path / "node.toml").read_text()
    assert node("init")[0] == 0 and (tmp_path / "node.toml").read_text() == before
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700
    assert json.loads(node("ledger", "--json")[1])["rows"] == 0
