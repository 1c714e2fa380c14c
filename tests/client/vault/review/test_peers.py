"""The other nodes of a secure sum, as their operator is told of them and pins them."""

from pathlib import Path

import pytest

from client.settings import load_node
from client.vault.review.node_files import open_node
from client.vault.review.peers import KnownPeer, known_peers, pin, sum_in_words
from client.vault.service.node_vault import NodeVault
from shared.errors import SettingsError
from shared.protocol.messages import Peer, StudyOffer
from shared.secure_sum.thresholds import OwnPolicy
from tests.support.nodes import Node
from tests.support.sum_nodes import sum_study

KEYS = {"east": "a" * 64, "south": "b" * 64, "west": "c" * 64}
ALL = tuple(KnownPeer(name, key, pinned=True, owner="", in_roster=False) for name, key in KEYS.items())
PINNED = OwnPolicy(dict.fromkeys(KEYS.values(), ""), 1, 3)


def told(policy: OwnPolicy, mode: str = "masked") -> str:
    peers = [KnownPeer(p.name, p.key_sha256, p.key_sha256 in policy.pins, "", in_roster=False) for p in ALL]
    return "\n".join(sum_in_words(sum_study(mode), peers, policy))


def test_who_is_pinned_and_what_follows_is_said_in_words() -> None:
    said = told(PINNED)
    assert "With 4 nodes it holds against 1 of them beside the server; this node counts 1" in said
    assert "This node lets no sum of fewer than 3 nodes be opened." in said
    assert said.endswith("It takes part.") and said.count("pinned\n") == 3 and "NOT PINNED" not in said
    assert "epsilon holds even if all others collude" in said and "even if all" not in told(PINNED, "shared")
    unpinned = told(OwnPolicy({"a" * 64: "", "b" * 64: ""}, 1, 3))
    assert f"west  {'c' * 64}  NOT PINNED: counts as a colluder" in unpinned
    assert "this node counts 2: the policy's colluders and every peer that is not pinned, and refuses them" in unpinned
    assert "fedvault-node peers --pin NAME" in unpinned


def test_a_study_without_a_secure_sum_says_nothing_and_one_without_peers_says_so(node: Node) -> None:
    assert sum_in_words(node.study(), ALL, PINNED) == []
    assert "has named no other nodes yet" in sum_in_words(sum_study(), [], PINNED)[-1]
    assert "there is no such sum" in sum_in_words(sum_study(threshold=5), ALL, PINNED)[-1]


def shown(node: Node) -> list[KnownPeer]:
    study = node.study(federation={"quorum": 3, "secure_sum": "masked"})
    peers = tuple(Peer(name, key) for name, key in KEYS.items())
    NodeVault(node.config).offer(StudyOffer("r-1", study.canonical_json(), peers=peers))
    return known_peers(open_node(node.config), "r-1")


def test_pins_are_lines_of_node_toml_and_all_else_stays(node: Node) -> None:
    before = node.config.read_text()
    peers = shown(node)
    assert [(peer.name, peer.pinned) for peer in peers] == [(name, False) for name in KEYS]
    assert pin(node.config, ["east"], peers) == ["east"]
    node.config.write_text(f"{node.config.read_text()}# the end\n[models]\nother = '{'d' * 64}'\n")
    pin(node.config, ["west", "east"], known_peers(open_node(node.config), "r-1"))
    text = node.config.read_text()
    assert text.startswith(before.rstrip()) and "# the end" in text and text.count("[peers]") == 1
    assert load_node(node.config).pins == {"a" * 64: "", "c" * 64: ""}
    assert load_node(node.config).models == {"other": "d" * 64}
    assert [peer.pinned for peer in known_peers(open_node(node.config))] == [True, False, True]


def test_an_owner_is_written_by_hand_and_shown(node: Node) -> None:
    peers = shown(node)
    node.config.write_text(f'{node.config.read_text()}\n[peers.east]\nkey = "{"a" * 64}"\nowner = "city"\n')
    assert [(peer.name, peer.owner) for peer in known_peers(open_node(node.config))][:1] == [("east", "city")]
    pin(node.config, ["west"], peers)
    assert load_node(node.config).pins == {"a" * 64: "city", "c" * 64: ""}


def test_another_key_under_a_pinned_name_is_not_pinned_and_a_name_with_two_keys_neither(node: Node) -> None:
    peers = shown(node)
    pin(node.config, ["east"], peers)
    before = node.config.read_text()
    other = KnownPeer("east", "e" * 64, pinned=False, owner="", in_roster=False)
    with pytest.raises(SettingsError, match="with the key that is pinned"):
        pin(node.config, ["east"], [other])
    for names, named in ((["east"], [*peers, other]), (["nobody"], peers)):
        with pytest.raises(SettingsError, match="a peer with one key that the server named"):
            pin(node.config, names, named)
    assert node.config.read_text() == before


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('east = "short"', "fingerprint, 64 hexadecimal digits"),
        (f'east = "{"a" * 64}"\nwest = "{"a" * 64}"', "one key"),
        ("east = 3", "peers"),
    ],
)
def test_what_pins_no_key_is_refused(tmp_path: Path, lines: str, complaint: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f"[peers]\n{lines}\n")
    with pytest.raises(SettingsError, match=complaint):
        load_node(config)
