"""Setting a node up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.app import cli
from client.link import membership
from client.vault.review.node_files import open_node
from shared.errors import SettingsError

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


def test_a_nodes_folders_that_were_there_already_become_its_users_alone(tmp_path: Path) -> None:
    home = tmp_path / "node"
    for folder in (home, home / "cache", home / "link"):
        folder.mkdir()
        folder.chmod(0o755)
    assert CliRunner().invoke(cli, ["init", "--config", str(tmp_path / "node.toml")]).exit_code == 0
    open_node(tmp_path / "node.toml").cache_folder()
    invite = {"name": "a", "server": "127.0.0.1:1", "authority": "", "token": "t", "expires": "2099-01-01T00:00:00Z"}
    (tmp_path / "invite.json").write_text(json.dumps(invite))
    joined = CliRunner().invoke(cli, ["join", str(tmp_path / "invite.json"), "--config", str(tmp_path / "node.toml")])
    assert isinstance(joined.exception, SettingsError) and "certificate in the invite" in str(joined.exception)
    assert {path.name: path.stat().st_mode & 0o077 for path in (home, home / "cache", home / "link")} == {
        "node": 0,
        "cache": 0,
        "link": 0,
    }
