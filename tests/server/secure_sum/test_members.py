"""Who is asked in a run with a secure sum: nodes with an entry before the roster is fixed, and its nodes afterwards."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from server.rounds import participants
from server.secure_sum.members import TOO_LATE, Federation
from shared.errors import SettingsError
from shared.protocol.messages import Peer, Status
from shared.secure_sum.entries import certificate_key_bytes
from tests.support.sum_server import Server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participants, "POLL_S", 0.001)
    monkeypatch.setattr(participants, "ASK_SELDOM_S", 0.0)


def test_an_offer_names_the_enrolled_nodes_with_their_keys_and_the_roster_is_of_those_who_approved(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path, 4)
    server.nodes[3].approves = Status.REJECTED
    server.drive()
    key = certificate_key_bytes(server.nodes[0].key.public_key())
    assert server.nodes[1].peers[0] == Peer("clinic-a", hashlib.sha256(key).hexdigest())
    assert len(server.nodes[1].peers) == 4
    assert server.roster.fixed is not None and server.roster.fixed.names == ("clinic-a", "clinic-b", "clinic-c")
    assert "train" not in server.nodes[3].asked


def test_who_approves_after_the_roster_was_fixed_is_not_asked_and_the_answer_says_so(tmp_path: Path) -> None:
    server, changes = Server(tmp_path, 4, rounds=2), list[dict[str, list[int]]]()
    late = server.nodes[3]
    late.approves = Status.REJECTED
    server.on_change = changes.append

    def look() -> None:
        if "train" in server.nodes[0].asked:
            late.approves = Status.APPROVED

    server.grid.after = look
    assert [record["outcome"] for record in server.drive().records] == ["aggregated"] * 2
    server.members.look()
    server.members.look()
    assert changes[-1][TOO_LATE] == [late.number] and "train" not in late.asked


def test_an_entry_that_does_not_count_is_an_answer_and_is_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, changes = Server(tmp_path, 3), list[dict[str, list[int]]]()
    server.on_change = changes.append
    node, own = server.nodes[1], server.nodes[1].key
    node.key = ec.generate_private_key(ec.SECP384R1())
    # the certificate that the server knows is of the node's own key
    server.enrolled_keys[node.name] = own

    def look() -> None:
        if node.asked.count("offer") > 2:
            node.key = own

    server.grid.after = look
    assert server.drive().records[0]["accepted"] == [11, 12, 13]
    assert {"approved": [11, 13], "refused_roster": [12]} in changes
    assert "clinic-b cannot join the secure sum" in caplog.text


def test_a_run_has_failed_when_revoked_nodes_leave_too_few(tmp_path: Path) -> None:
    server = Server(tmp_path, 4, rounds=3)
    server.drive()
    server.revoked |= {"clinic-a", "clinic-c"}
    with pytest.raises(SettingsError, match=r"clinic-a \(revoked\), clinic-c \(revoked\)"):
        server.members.look()


def test_a_node_without_a_readable_key_is_no_peer(tmp_path: Path) -> None:
    first, *others = (server := Server(tmp_path, 3)).store.nodes()
    server.store.nodes = lambda: [first, *(replace(node, public_key="") for node in others)]  # type: ignore[method-assign]
    assert [peer.name for peer in Federation(server.store).peers()] == ["clinic-a"]  # type: ignore[arg-type]
