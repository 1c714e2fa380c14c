"""Setting a node up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.link import membership

Command = Callable[..., tuple[int, str, str]]


def test_init_writes_a_template_and_an_empty_ledger_and_changes_nothing_twice(node: Command, tmp_path: Path) -> None:
    assert node("init")[0] == 0
    before = (tmp_path / "node.toml").read_text()
    assert node("init")[0] == 0 and (tmp_path / "node.toml").read_text() == before
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700
    assert json.loads(node("ledger", "--json")[1])["rows"] == 0


def test_leaving_closes_open_runs_and_leaves_no_copy_of_their_records(
    node: Command, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    home = tmp_path / "node"
    (home / "cache").mkdir()
    (home / "cache" / "abc-def.f32").write_bytes(b"activations")
    assert [path for path in (home / "approved").rglob("*") if path.is_file()]
    monkeypatch.setattr(membership, "membership", lambda folder: membership.Membership(folder, "ward", "server:1"))
    assert node("leave", "--yes")[0] == 0
    assert [path for part in ("cache", "approved") for path in (home / part).rglob("*")] == []
    assert json.loads(node("ledger", "--json")[1])["runs"]["first"]["earmarked"] == 0


def test_rejecting_a_run_leaves_no_activations(node: Command, study: Callable[..., str], tmp_path: Path) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    cache = tmp_path / "node" / "cache"
    (cache / "verdicts").mkdir(parents=True)
    (cache / "abc-def.f32").write_bytes(b"activations")
    assert node("reject", "first")[0] == 0
    assert [path.name for path in cache.iterdir()] == ["verdicts"], "what the probe found out about no record stays"
