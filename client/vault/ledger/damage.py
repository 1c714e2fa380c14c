"""Examining a ledger that does not open: what is left of it, and what is known to be missing."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from client.vault.ledger.positions import read_position, refused_server_copy
from client.vault.ledger.state import LedgerState
from client.vault.ledger.storage import GENESIS, StoredRow, stored_rows, unbroken
from shared.errors import FedVaultError
from shared.protocol.messages import LedgerPosition


class Trouble(Enum):
    """A reason for a person to look, as the row of the decision names it."""

    BROKEN = "broken"
    NO_SECOND_COPY = "no_second"
    SECOND_COPY_DIFFERS = "second_differs"
    SERVER_COPY_DIFFERS = "server_differs"
    SERVER_COPY_UNPROVEN = "server_unproven"


IN_WORDS = {
    Trouble.BROKEN: "rows were changed or are missing",
    Trouble.NO_SECOND_COPY: "its second copy is gone, older, or cannot be read",
    Trouble.SECOND_COPY_DIFFERS: "its second copy tells of rows that it does not hold",
    Trouble.SERVER_COPY_DIFFERS: "the server saw rows that it does not hold, as this node's own MAC shows",
    Trouble.SERVER_COPY_UNPROVEN: "the server says, without proof, that it saw rows which this ledger does not hold",
}


@dataclass(frozen=True)
class LedgerDamage:
    """The rows that are left of a ledger, and everything that is wrong with it."""

    unbroken: list[StoredRow]
    """From the first one on, as they were entered."""
    after_break: list[StoredRow]
    """What can still be read of the others."""
    troubles: tuple[Trouble, ...]
    """Empty for a ledger that is whole."""
    gone: tuple[LedgerPosition, ...]
    """Height and head of rows that somebody knows, and that the unbroken ones do not lead to."""
    rows_are_missing: bool
    """Whether something is known to be missing that nobody has decided about yet."""

    @property
    def in_words(self) -> str:
        """Every trouble."""
        return " and ".join(IN_WORDS[trouble] for trouble in self.troubles)

    @property
    def is_known(self) -> bool:
        """True if something is wrong that does not rest on the server's word alone."""
        return bool(set(self.troubles) - {Trouble.SERVER_COPY_UNPROVEN})


def examine(path: Path, second_copy: Path) -> LedgerDamage:
    """Read what can be read of a ledger; the caller holds its lock."""
    rows, read_to_the_end = _readable(path)
    chain, state = unbroken(rows), LedgerState()
    allowed = next((count for count, row in enumerate(chain) if not apply_if_allowed(state, row.body)), len(chain))
    first, after_break = rows[:allowed], rows[allowed:]
    heads = [GENESIS, *(row.hash for row in first)]
    copied, (server, proven) = read_position(second_copy), refused_server_copy(path, known=state.key_sha256)
    second_differs = copied is not None and not _leads_to(heads, copied)
    server_differs = (
        server is not None and not _leads_to(heads, server) and (server.height, server.head) not in state.accepted
    )
    troubles = {
        Trouble.BROKEN: bool(after_break or not read_to_the_end),
        Trouble.NO_SECOND_COPY: _is_no_help(copied, heads) and bool(rows or second_copy.exists()),
        Trouble.SECOND_COPY_DIFFERS: second_differs,
        Trouble.SERVER_COPY_DIFFERS: server_differs and proven,
        Trouble.SERVER_COPY_UNPROVEN: server_differs and not proven,
    }
    # what the server saw of rows whose loss was decided about already is not one more loss
    decided = max((height for height, _head in state.accepted), default=0)
    lost_anew = server is not None and server_differs and server.height > decided
    gone = [LedgerPosition(row.height, row.hash) for row in after_break]
    gone += [copied] if copied is not None and second_differs else []
    gone += [server] if server is not None and server_differs else []
    return LedgerDamage(
        first,
        after_break,
        tuple(trouble for trouble, is_so in troubles.items() if is_so),
        tuple(gone),
        rows_are_missing=troubles[Trouble.BROKEN] or second_differs or lost_anew,
    )


def apply_if_allowed(state: LedgerState, body: str) -> bool:
    """Enter a row if the ledger's rules allow it, and return whether they do."""
    try:
        row = json.loads(body)
        datetime.fromisoformat(row["time"])
        state.apply(row)
    except (FedVaultError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _readable(path: Path) -> tuple[list[StoredRow], bool]:
    """Read rows as far as they can be read, in order; say whether that was to the end."""
    rows: list[StoredRow] = []
    if not path.exists():
        return rows, True
    try:
        with closing(sqlite3.connect(path)) as database:
            for row in stored_rows(database):
                rows.append(row)
    except (sqlite3.Error, ValueError, OverflowError):
        return rows, False
    return rows, True


def _leads_to(heads: list[str], position: LedgerPosition) -> bool:
    return position.height < len(heads) and heads[position.height] == position.head


def _is_no_help(copied: LedgerPosition | None, heads: list[str]) -> bool:
    """Return true if a second copy says nothing of the latest rows; one row behind is a crash between the two."""
    return copied is None or (_leads_to(heads, copied) and len(heads) - 1 > copied.height + 1)
