"""A node in two containers: each half says what it sees, and none claims what the other one has."""

import io
from pathlib import Path

import pytest

from client.deployment import VARIABLE, deployment
from client.operator.doctor import examine
from client.operator.status import node_status
from client.settings import Folders
from client.vault.review.node_files import open_node
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from shared.errors import SettingsError
from shared.protocol.invite import read_invite


@pytest.fixture
def places(tmp_path: Path) -> Folders:
    (tmp_path / "node.toml").write_text("")
    return open_node(tmp_path / "node.toml").folders


def test_a_half_is_vault_or_link_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name in ("", "vault", "link"):
        monkeypatch.setenv(VARIABLE, name)
        seen[name] = (deployment().has_vault, deployment().has_link)
    assert seen == {"": (True, True), "vault": (True, False), "link": (False, True)}
    monkeypatch.setenv(VARIABLE, "both")
    with pytest.raises(SettingsError, match="FEDVAULT_DEPLOYMENT='both'"):
        deployment()
    monkeypatch.setenv(VARIABLE, "link")
    monkeypatch.setenv("FEDVAULT_SIDE", "link")
    with pytest.raises(SettingsError, match="its earlier name"):
        deployment()


def test_status_is_asked_of_the_socket_and_of_the_half_that_is_here(
    places: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    with serving(VaultService(NodeVault(tmp_path / "node.toml", on_step=steps), steps), places.socket):
        monkeypatch.setenv(VARIABLE, "vault")
        found = node_status(places)
        assert found["running"] is True and found["vault"]["ledger_rows"] == 0
        assert found["link"] == "in its own container"
        monkeypatch.setenv(VARIABLE, "link")
        places.link.mkdir()
        (places.link / "state.json").write_text('{"connected": true}')
        found = node_status(places)
        assert found["running"] is True and found["vault"]["busy"] is False
        assert found["local_metrics"] == "in the vault's container"
    monkeypatch.setenv(VARIABLE, "vault")
    assert node_status(places)["running"] is False and node_status(places)["vault"] is None
    monkeypatch.delenv(VARIABLE)
    assert node_status(places)["running"] is False


def test_doctor_examines_one_half(places: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "node.toml"
    policy = "epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\n"
    config.write_text(f'[datasets.ward]\nsource = "ward.csv"\n{policy}models = ["{"0" * 64}"]\n')
    monkeypatch.setenv(VARIABLE, "vault")
    vault = [finding.check for finding in examine(config)]
    monkeypatch.setenv(VARIABLE, "link")
    link = {finding.check: finding for finding in examine(config)}
    assert vault[:3] == ["settings", "ledger", "disk"] and "ward: data" in vault and "membership" not in vault
    assert list(link) == ["settings", "disk", "membership", "vault"]
    assert not link["vault"].ok and "Is its container running?" in link["vault"].todo


def test_an_invite_may_come_as_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("not an invite"))
    with pytest.raises(SettingsError, match="Expected an invite"):
        read_invite(Path("-"))
