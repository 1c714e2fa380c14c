"""The other nodes of a secure sum, for their operator: which are pinned, what follows from that, and pinning them.

The server names them, and its authority certifies whom it likes. A pin is worth what the comparison was worth: read the
fingerprint out to the other operator, who sees theirs with `fedvault-node peers`.
"""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.settings import NodeSettings
from client.vault.review.node_files import NodeFiles
from shared.errors import SettingsError
from shared.files import write_atomically, write_private
from shared.printable import one_line
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.thresholds import OwnPolicy
from shared.study.declaration import Study
from shared.study.parsing import parse, read_toml
from shared.study.secure_sum import sum_sizes

SECTION = re.compile(r"^\[peers\][ \t]*(#.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class KnownPeer:
    """One node that the server named."""

    name: str
    key_sha256: str
    pinned: bool
    owner: str
    """Whose node it is, if `[peers]` says so."""
    in_roster: bool
    """Whether the run's roster, once it is fixed, has it."""


def known_peers(node: NodeFiles, run: str | None = None) -> list[KnownPeer]:
    """Return the nodes that the server named for a run, or for any; of a run whose roster is fixed, those in it.

    Raises:
        SettingsError: no such run is on offer.
    """
    offers = node.offers.all() if run is None else [node.offers.find(run)]
    rosters = {offered.run: node.sums.roster(offered.run) for offered in offers}
    fixed = {(entry.name, entry.fingerprint) for roster in rosters.values() if roster for entry in roster.entries}
    named = fixed | {
        (peer.name, peer.key_sha256) for offered in offers if not rosters[offered.run] for peer in offered.peers
    }
    own, pins = _own_keys(node, rosters), node.settings.pins
    return [
        KnownPeer(name, key, key in pins, pins.get(key, ""), (name, key) in fixed)
        for name, key in sorted(named)
        if key not in own
    ]


def sum_in_words(study: Study, peers: Sequence[KnownPeer], policy: OwnPolicy) -> list[str]:
    """Return what an operator who decides about a study is told of its secure sum; nothing for a study without one."""
    mode = study.federation.secure_sum
    if mode is None:
        return []
    lines = ["Its updates are summed behind masks: the server opens the sum of many nodes, and no single one's."]
    if mode == "masked":
        lines.append("Each node adds the whole noise: epsilon holds even if all others collude.")
    if not peers:
        return [*lines, "The server has named no other nodes yet: fedvault-node peers shows them once it has."]
    lines += [f"  {_in_words(peer)}" for peer in peers]
    fewest = max(policy.smallest_cohort, study.federation.quorum)
    lines.append(f"This node lets no sum of fewer than {fewest} nodes be opened.")
    feared, nodes = policy.feared(peer.key_sha256 for peer in peers), len(peers) + 1
    try:
        sizes = sum_sizes(nodes, study.federation)
        held = f"With {nodes} nodes it holds against {sizes.colluders} of them beside the server"
    except SettingsError as error:
        return [*lines, f"With {nodes} nodes there is no such sum: {error}"]
    counts = f"this node counts {feared}: the policy's colluders and every peer that is not pinned"
    try:
        policy.check(sizes, (peer.key_sha256 for peer in peers))
    except SecureSumError as error:
        unmet = "and refuses them. Compare keys with their operators, then: fedvault-node peers --pin NAME"
        return [*lines, f"{held}; {counts}, {unmet} ({error})"]
    return [*lines, f"{held}; {counts}. It takes part."]


def pin(config: Path, names: Collection[str], peers: Iterable[KnownPeer]) -> list[str]:
    """Write the keys of some peers into `[peers]` of node.toml, and return whose; those that are pinned stay.

    Raises:
        SettingsError: the server named no such peer, or one with two keys, or another key is pinned under the name.
    """
    by_name = dict[str, set[str]]()
    for peer in peers:
        by_name.setdefault(peer.name, set()).add(peer.key_sha256)
    text, settings = config.read_text(), parse(NodeSettings, read_toml(config), where=str(config))
    lines = list[str]()
    for name in sorted(names):
        keys = by_name.get(name, set())
        if len(keys) != 1 or not name.isprintable():
            known = ", ".join(sorted(by_name)) or "none"
            raise SettingsError(f"Expected a peer with one key that the server named ({known}), got {name!r}.")
        (key,) = keys
        if name in settings.peers and settings.peers[name].key != key:
            raise SettingsError(
                f"Expected {name!r} with the key that is pinned, the server names {key}.",
                hint="Ask its operator which one is theirs. If it was made anew, change [peers] in node.toml.",
            )
        if key not in settings.pins:
            lines.append(f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(key)}\n")
    if lines:
        private = not config.stat().st_mode & 0o077  # it may hold a proxy's password
        (write_private if private else write_atomically)(config, _with_pins(text, "".join(lines)).encode())
    return sorted(names)


def as_plain(peers: Iterable[KnownPeer]) -> list[dict[str, Any]]:
    """Return peers for a program."""
    return [asdict(peer) for peer in peers]


def _with_pins(text: str, lines: str) -> str:
    header = SECTION.search(text)
    if header is None:
        return f"{text.rstrip()}\n\n[peers]\n{lines}"
    return f"{text[: header.end()]}\n{lines}{text[header.end() :].lstrip()}"


def _in_words(peer: KnownPeer) -> str:
    owner = f", of {peer.owner}" if peer.owner else ""
    pinned = f"pinned{owner}" if peer.pinned else "NOT PINNED: counts as a colluder"
    return f"{one_line(peer.name)}  {peer.key_sha256}  {pinned}"


def _own_keys(node: NodeFiles, runs: Iterable[str]) -> set[str]:
    identities = (node.sums.identity(run) for run in runs)
    return {identity.entry.fingerprint for identity in identities if identity is not None}
