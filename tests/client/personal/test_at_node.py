"""A node's personal adapter: made for its own eyes, kept where nothing that answers reads, and said to be dangerous."""

import json
import logging
import socket
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from client.cli import main
from client.evidence.history import history, lines
from client.operator.backup import back_up
from client.operator.withdrawal import withdraw
from client.personal import training
from client.personal.at_node import export_personal, in_words, make_personal
from client.personal.training import WARNING
from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from client.vault_api._generated import vault_pb2
from shared.adapted_model.export import write_adapter
from shared.adapted_model.finished import load_finished
from shared.adapted_model.model import build, initial_adapter
from shared.errors import SettingsError
from shared.study.declaration import Study
from tests.support.nodes import Node

RUN = "r-1"
CALLS = {"Train", "Offer", "Leg", "Evaluate", "Status", "Forget"}
"""All that the link's socket answers."""


def finished(node: Node, study: Study, folder: Path) -> Path:
    """What the server's operator would hand out of a run that learnt nothing."""
    write_adapter(study, build(study), initial_adapter(study), folder, base_fingerprint=str(node.fingerprint))
    return folder


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Any) -> Node:
    made = Node(tmp_path, tiny_bert, make_study)
    study = made.study(privacy={"sampling_rate": 0.5})
    made.approve(study, RUN)
    finished(made, study, tmp_path / "adapter")
    return made


@pytest.fixture(autouse=True)
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PASSES", 2)


def make(node: Node, run: str = RUN, adapter: str = "adapter") -> Any:
    return make_personal(open_node(node.config), run, node.folder / adapter, lambda *_: None)


@pytest.mark.guarantee("nothing of it enters the ledger, whose height is told to the server.")
def test_nothing_leaves_and_nothing_of_it_is_in_what_the_server_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = open_node(node.config)
    with files.open_ledger() as ledger:
        before = ledger.position
    refused = pytest.fail
    for name in ("connect", "connect_ex", "bind", "sendall", "sendto", "send"):
        monkeypatch.setattr(socket.socket, name, lambda *_: refused("a socket was used"))
    with caplog.at_level(logging.WARNING):
        facts = make(node)
    with files.open_ledger() as ledger:
        assert ledger.position == before and ledger.state.spent("ward") == 0
    assert facts.warning == WARNING and WARNING in caplog.text
    # other records chose it, so on these few it may be worse
    assert facts.held_out > 0 and (facts.after == facts.before) == (facts.passes == 0)
    measured, *_, said = in_words(facts)
    assert f"{facts.before['accuracy']:.4g} before" in measured and WARNING in said


def test_no_call_of_the_links_socket_fetches_it_and_its_folder_is_none_of_the_links(node: Node) -> None:
    (service,) = vault_pb2.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods} == CALLS
    places = open_node(node.config).folders
    assert not any(places.personal.is_relative_to(folder) for folder in (places.link, places.running, places.offers))
    make(node)
    written = [path for path in places.personal.rglob("*") if path.is_file()]
    assert len(written) == 2 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in [*written, written[0].parent])


def test_history_tells_of_it_in_its_place_and_backups_leave_it_out(node: Node) -> None:
    facts, files = make(node), open_node(node.config)
    last = history(files)[-1]
    assert last == {"row": None, "time": facts.time, "kind": "personalise", "run": RUN, "sentence": last["sentence"]}
    assert "WITHOUT PRIVACY" in last["sentence"] and "nothing was charged" in last["sentence"]
    assert lines(history(files))[-1].startswith("    -") and node.rows()[-1] == "approve"
    back_up(files, node.folder / "backup.tar.gz")
    with tarfile.open(node.folder / "backup.tar.gz") as archive:
        assert not [name for name in archive.getnames() if name.startswith("home/personal/")]


def test_it_goes_with_the_records(node: Node) -> None:
    make(node)
    files = open_node(node.config)
    (files.folders.personal / "tmp_of_a_killed_command").mkdir()
    (files.folders.personal / "tmp_of_a_killed_command" / "activations.f32").write_bytes(bytes(8))
    withdraw(files, "ward")
    assert list(files.folders.personal.iterdir()) == []
    with pytest.raises(SettingsError, match="whose records are still here"):
        make(node)


def test_what_is_exported_says_what_it_is_and_peft_and_fedvault_load_it(node: Node) -> None:
    with pytest.raises(SettingsError, match="personal adapter of r-1, got none"):
        export_personal(open_node(node.config), RUN, node.folder / "mine")
    facts = make(node)
    export_personal(open_node(node.config), RUN, node.folder / "mine")
    card = (node.folder / "mine" / "README.md").read_text()
    assert WARNING in card and f"{facts.after['accuracy']:.4g}" in card
    assert json.loads((node.folder / "mine" / "fedvault.json").read_text())["without_privacy"] == WARNING
    assert (node.folder / "mine" / "adapter_config.json").exists()
    assert stat.S_IMODE((node.folder / "mine").stat().st_mode) == 0o700
    assert set(load_finished(node.folder / "mine").classify(["good word3", "bad word2"])) <= {"no", "yes"}
    with pytest.raises(SettingsError, match="Expected a new folder"):
        export_personal(open_node(node.config), RUN, node.folder / "mine")


def test_another_studys_adapter_and_another_run_are_refused(node: Node) -> None:
    other = node.study(privacy={"sampling_rate": 0.25})
    finished(node, other, node.folder / "other")
    with pytest.raises(SettingsError, match="holds one of another study"):
        make(node, adapter="other")
    with pytest.raises(SettingsError, match=r"a run of the ledger \(r-1\), got 'r-2'"):
        make(node, run="r-2")
    with pytest.raises(SettingsError, match="Expected an exported adapter"):
        make(node, adapter="nowhere")


def test_the_command_prints_before_and_after(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(node.folder)

    def typed(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["fedvault-node", "personalise", RUN, *arguments])
        with pytest.raises(SystemExit):
            main()
        written = capsys.readouterr()
        return written.out, written.err

    assert "Expected --adapter" in typed()[1]
    facts = json.loads(typed("--adapter", "adapter", "--json")[0])
    assert facts["warning"] == WARNING and set(facts["before"]) == set(facts["after"])
    shown = typed("--out", "mine")[0]
    assert WARNING in shown and "before" in shown and Path("mine").is_dir()


@pytest.mark.guarantee("nothing of it is kept once its run was ended.")
def test_a_run_that_is_withdrawn_while_it_is_made_leaves_none(node: Node) -> None:
    def withdrawn(what: str, done: int, _of: int) -> None:
        if "pass" in what and done == 1:
            withdraw(files, "ward")

    files = open_node(node.config)
    with pytest.raises(SettingsError, match="was ended meanwhile"):
        make_personal(files, RUN, node.folder / "adapter", withdrawn)
    assert not any(files.folders.personal.iterdir()) and not files.folders.personal_log.exists()


def test_what_a_killed_command_left_of_an_ended_run_goes_at_the_vaults_next_look(node: Node) -> None:
    make(node)
    files = open_node(node.config)
    with files.open_ledger() as ledger:
        ledger.withdraw("ward")
    assert any(files.folders.personal.iterdir())
    NodeVault(node.config).forget_ended(announced=False)
    assert not any(files.folders.personal.iterdir())
