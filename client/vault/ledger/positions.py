"""A ledger's position, written down beside it: the local second copy, and the server's copy if it differed."""

import json
from pathlib import Path

from shared.files import write_private
from shared.protocol.messages import LedgerPosition


def write_position(path: Path, position: LedgerPosition) -> None:
    """Write a position durably."""
    write_private(path, json.dumps({"height": position.height, "head": position.head}).encode())


def read_position(path: Path) -> LedgerPosition | None:
    """Read a position; None if there is none that can be read."""
    try:
        plain = json.loads(path.read_text())
        position = LedgerPosition(int(plain["height"]), str(plain["head"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return position if position.height >= 0 else None


def server_copy_of(path: Path) -> Path:
    """Return where the server's copy is kept that the ledger at `path` refused."""
    return path.with_name("echo.json")
