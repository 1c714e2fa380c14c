"""`fedvault-node peers`: who may take part in a secure sum, and whose keys are pinned."""

import json
from collections.abc import Callable
from pathlib import Path

from client.vault.service.node_vault import NodeVault
from shared.protocol.messages import Peer, StudyOffer
from shared.study.declaration import load_study

Command = Callable[..., tuple[int, str, str]]
PEERS = (Peer("east", "a" * 64), Peer("south", "b" * 64))


def test_peers_are_shown_pinned_and_named_by_show(node: Command, study: Callable[..., str]) -> None:
    assert "has named no other nodes" in node("peers")[1]
    declared = load_study(Path(study(sizes='secure_sum = "masked"')))
    NodeVault(Path("node.toml")).offer(StudyOffer("r-1", declared.canonical_json(), peers=PEERS))
    code, out, _ = node("peers", "r-1")
    assert code == 0 and "east" in out and "a" * 40 in out and "yes" not in out
    assert "NOT PINNED" in node("show", "r-1", "--dataset", "ward")[1]
    assert "Pinned in node.toml: east" in node("peers", "--pin", "east")[1]
    assert "Pinned in node.toml: south" in node("peers", "r-1", "--pin-all")[1]
    shown = json.loads(node("peers", "--json")[1])
    assert shown["own_key_sha256"] is None and [peer["pinned"] for peer in shown["peers"]] == [True, True]
    asked = json.loads(node("show", "r-1", "--dataset", "ward", "--json")[1])
    assert not any("NOT PINNED" in line for line in asked["secure_sum"])
    code, _, error = node("peers", "--pin", "nobody")
    assert code != 0 and "Expected a peer with one key that the server named (east, south), got 'nobody'" in error
    assert node("peers", "--pin", "east", "--pin-all")[0] != 0
