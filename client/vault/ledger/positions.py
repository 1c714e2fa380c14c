"""A ledger's position: written down beside it, and known again when the server sends it back.

What the server echoes is a claim. A position that this node sent bears a MAC under the node's key, so the server can
neither make one nor change it:

| the echo's MAC | the ledger leads to the position | what follows |
|---|---|---|
| this node's | yes | the round goes on |
| this node's | no | rows are missing: nothing is trained until a person decides, whatever the server says later |
| another | either | the echo is not ours: the round is refused, and says nothing about this ledger |
| none, as from before | yes | the round goes on |
| none, as from before | no | a person is asked whether an older copy was restored; nothing rests on the server's word |
"""

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path

from client.vault.ledger.record_index import key_digest, node_key
from shared.errors import LedgerError
from shared.files import write_private
from shared.protocol.messages import NO_MAC, LedgerPosition

NOT_OURS = "The server's operator has to look. Nothing is to be done here: this ledger was compared with nothing."
WITHOUT_PROOF = (
    "The server's word alone proves nothing. If an older copy of this node was restored, restore the newest backup. "
    "If not, the server is wrong: tell its operator."
)


def with_mac(position: LedgerPosition, ledger: Path, *, known: str | None) -> LedgerPosition:
    """Return a position as this node sends it.

    Guarantee: a position that bears this node's MAC was reached by a ledger with this node's key.

    Args:
        position: of the ledger.
        ledger: its path; the node's key lies beside it.
        known: digest of the key, by the ledger.

    Raises:
        LedgerError: the key is gone, or another one than the ledger knows.
    """
    key = node_key(key_of(ledger), known=known)
    covered = f"{key_digest(key)}\n{position.height}\n{position.head}".encode()
    mac = hashlib.blake2b(covered, key=key, digest_size=32, person=b"fedvault-ledger").hexdigest()
    return replace(position, mac=mac)


def is_ours(position: LedgerPosition, ledger: Path, *, known: str | None) -> bool:
    """Return true if a position bears this node's MAC.

    Raises:
        LedgerError: the key is gone, or another one than the ledger knows.
    """
    return hmac.compare_digest(with_mac(position, ledger, known=known).mac, position.mac)


def key_of(ledger: Path) -> Path:
    """Return where the node's key lies that the MACs of the ledger at this path are made with."""
    return ledger.with_name("record.key")


def write_position(path: Path, position: LedgerPosition) -> None:
    """Write a position durably."""
    plain = {"height": position.height, "head": position.head}
    write_private(path, json.dumps(plain if position.mac == NO_MAC else plain | {"mac": position.mac}).encode())


def read_position(path: Path) -> LedgerPosition | None:
    """Read a position; None if there is none that can be read."""
    try:
        plain = json.loads(path.read_text())
        position = LedgerPosition(int(plain["height"]), str(plain["head"]), str(plain.get("mac", NO_MAC)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return position if position.height >= 0 else None


def server_copy_of(path: Path) -> Path:
    """Return where the server's copy is kept that the ledger at `path` refused."""
    return path.with_name("echo.json")


def refused_server_copy(path: Path, *, known: str | None) -> tuple[LedgerPosition | None, bool]:
    """Return the server's copy that the ledger at `path` refused, and whether it bears this node's MAC."""
    refused = read_position(server_copy_of(path))
    try:
        return refused, refused is not None and refused.mac != NO_MAC and is_ours(refused, path, known=known)
    except LedgerError:
        return refused, False
