"""A ledger that does not open, and the person who decides: what can be read, what is missing, what going on costs.

| what is wrong | what accepting does |
|---|---|
| the second copy is gone or older, as on a new machine | every round that open runs had left is charged |
| rows are changed or missing: by itself, its second copy or the server | so too, and all its records are withdrawn |
| no row can be read | nothing: a backup has to be restored first |

What rows that are gone have spent cannot be known, only that it was no more than everything: hence no more training.
The file as it was is set aside, and the decision is a row of the new one.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from client.vault.ledger.ledger import lock_of, server_copy_of
from client.vault.ledger.state import LedgerState
from client.vault.ledger.storage import GENESIS, SCHEMA, SCHEMA_VERSION, body_of, chained, speaking
from shared.errors import FedVaultError, LedgerError, SettingsError
from shared.files import private_file, write_atomically
from shared.protocol.messages import LedgerPosition

MAY_LOWER = frozenset({"close", "commit"})
"""Rows from beyond a break that are not entered again: a forged one of any other kind can only add to what is spent or
forbidden. What was released is found in the outbox."""


class Trouble(StrEnum):
    """Why a person has to look."""

    BROKEN = "rows were changed or are missing"
    NO_SECOND = "its second copy is gone, older, or cannot be read"
    SECOND_DIFFERS = "its second copy tells of rows that it does not hold"
    SERVER_DIFFERS = "the server saw rows that it does not hold"


@dataclass(frozen=True)
class Row:
    """A row as the file holds it, whatever it says."""

    height: int
    body: str
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """For an export."""
        said = _said(self.body)
        return {"height": self.height, "hash": self.hash, **({"body": self.body} if said is None else said)}


@dataclass(frozen=True)
class Condition:
    """What is left of a ledger."""

    unbroken: list[Row]
    """From the first one on, as they were entered."""
    beyond: list[Row]
    """After the break: what can still be read."""
    troubles: tuple[Trouble, ...]
    gone: tuple[LedgerPosition, ...]
    """Height and head of rows that somebody knows, and that the unbroken ones do not lead to."""
    rows_are_missing: bool
    """Whether something is known to be missing that nobody has decided about yet."""


def examine(path: Path, second_copy: Path) -> Condition:
    """Read what can be read of a ledger; the caller holds its lock."""
    rows, whole = _readable(path)
    state, head = LedgerState(), GENESIS
    unbroken: list[Row] = []
    for row in rows:
        if row.height != len(unbroken) + 1 or chained(head, row.body) != row.hash or not _applied(state, row.body):
            break
        unbroken.append(row)
        head = row.hash
    beyond = rows[len(unbroken) :]
    heads = {0: GENESIS} | {row.height: row.hash for row in unbroken}
    kept, server_copy = _position(second_copy), _position(server_copy_of(path))
    troubles = {
        Trouble.BROKEN: bool(beyond or not whole),
        Trouble.NO_SECOND: _is_no_help(kept, heads) and bool(rows or second_copy.exists()),
        Trouble.SECOND_DIFFERS: kept is not None and heads.get(kept.height) != kept.head,
        Trouble.SERVER_DIFFERS: server_copy is not None
        and heads.get(server_copy.height) != server_copy.head
        and (server_copy.height, server_copy.head) not in state.accepted,
    }
    # what the server saw of rows whose loss was decided about already is not one more loss
    decided = max((height for height, _head in state.accepted), default=0)
    lost_anew = troubles[Trouble.SERVER_DIFFERS] and server_copy is not None and server_copy.height > decided
    gone = [LedgerPosition(row.height, row.hash) for row in beyond]
    gone += [kept] if kept is not None and troubles[Trouble.SECOND_DIFFERS] else []
    gone += [server_copy] if server_copy is not None and troubles[Trouble.SERVER_DIFFERS] else []
    return Condition(
        unbroken,
        beyond,
        tuple(trouble for trouble, found in troubles.items() if found),
        tuple(gone),
        rows_are_missing=troubles[Trouble.BROKEN] or troubles[Trouble.SECOND_DIFFERS] or lost_anew,
    )


def accept(
    path: Path,
    second_copy: Path,
    *,
    datasets: Collection[str],
    patience_s: float = 0.0,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Condition:
    """Go on without what is missing, because a person said so; returns what was found.

    Guarantee: accepting never lowers what is spent, and where rows are known to be missing all training on its records
    ends.

    Args:
        path: the ledger.
        second: its second copy; written anew.
        datasets: every dataset of node.toml: one that the missing rows registered is ended too.
        patience_s: how long to wait for another process to let go of it.
        now: the clock.

    Raises:
        SettingsError: nothing is wrong with it.
        LedgerError: nothing of it can be read, or it cannot be written.
    """
    with lock_of(path.with_name(f"{path.name}.lock"), patience_s=patience_s), speaking(path):
        found = examine(path, second_copy)
        if not found.troubles:
            raise SettingsError("Expected a ledger that waits for a decision, this one is whole.")
        if not found.unbroken and not found.beyond:
            raise LedgerError(
                f"Expected rows in the ledger {path}, none can be read.",
                hint="Restore a backup of [node] home, then accept. Without one nobody knows what was spent: "
                "these records are not to be trained on again.",
            )
        moment = now()
        aside = _set_aside(path, moment)
        bodies = _decided(found, datasets, aside=aside.name, moment=moment)
        _replace(path, bodies)
        height, head = len(bodies), _head(bodies)
        write_atomically(second_copy, json.dumps({"height": height, "head": head}).encode())
        server_copy_of(path).unlink(missing_ok=True)
    return found


def _decided(found: Condition, datasets: Collection[str], *, aside: str, moment: datetime) -> list[str]:
    """Every body of the new ledger: the unbroken rows to the letter, then what the decision adds."""
    bodies, state = [row.body for row in found.unbroken], LedgerState()
    for body in bodies:
        _applied(state, body)
    latest = max([moment, *(datetime.fromisoformat(json.loads(body)["time"]) for body in bodies)])
    for row in _additions(found, state, datasets, aside=aside):
        # a row that the books do not allow has nothing to add: the run is over, or its records are withdrawn
        if _applied(state, body := body_of(row, latest)):
            bodies.append(body)
    return bodies


def _additions(
    found: Condition, state: LedgerState, datasets: Collection[str], *, aside: str
) -> Iterator[dict[str, Any]]:
    """In an order in which each is allowed; asked for one by one, since each looks at the books as they are by then."""
    for row in found.beyond:
        said = _said(row.body) or {}
        if said.get("kind") not in MAY_LOWER:
            yield {name: value for name, value in said.items() if name not in ("time", "salt")}
    for name, run in list(state.runs.items()):
        if not run.closed:
            yield from (
                {"kind": "reserve", "run": name, "round": number}
                for number in range(1, run.rounds + 1)
                if number not in run.attempts
            )
            yield {"kind": "close", "run": name}
    ended = found.rows_are_missing
    if ended:
        yield from ({"kind": "withdraw", "dataset": name} for name in list(state.limits))
    yield {
        "kind": "accept",
        "troubles": [trouble.name.lower() for trouble in found.troubles],
        "set_aside": aside,
        "gone": [{"height": position.height, "head": position.head} for position in found.gone],
        "withdrawn": sorted(set(datasets) | set(state.limits)) if ended else [],
    }


def _replace(path: Path, bodies: list[str]) -> None:
    with private_file(path) as unfinished:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            database.execute("BEGIN")
            head = GENESIS
            for height, body in enumerate(bodies, start=1):
                head = chained(head, body)
                database.execute("INSERT INTO rows VALUES (?, ?, ?)", (height, body, head))
            database.execute("COMMIT")
        # a write-ahead log belongs to the file that goes; reading it has brought its rows into what is written here
        for suffix in ("-wal", "-shm"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _set_aside(path: Path, moment: datetime) -> Path:
    copy = path.with_name(f"{path.name}.{moment:%Y%m%dT%H%M%S}.set-aside")
    for suffix in ("", "-wal"):
        source, target = path.with_name(f"{path.name}{suffix}"), copy.with_name(f"{copy.name}{suffix}")
        if source.exists():
            with private_file(target) as unfinished:
                shutil.copyfile(source, unfinished)
    return copy


def _readable(path: Path) -> tuple[list[Row], bool]:
    """Rows that can be read, in order, and whether the file had no more."""
    found: list[Row] = []
    if not path.exists():
        return found, True
    try:
        with closing(sqlite3.connect(path)) as database:
            for height, body, digest in database.execute("SELECT height, body, hash FROM rows ORDER BY height"):
                found.append(Row(int(height), str(body), str(digest)))
    except (sqlite3.Error, ValueError, OverflowError):
        return found, False
    return found, True


def _applied(state: LedgerState, body: str) -> bool:
    """Whether the books allow a row; it is entered if they do."""
    try:
        row = json.loads(body)
        datetime.fromisoformat(row["time"])
        state.apply(row)
    except (FedVaultError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _is_no_help(kept: LedgerPosition | None, heads: dict[int, str]) -> bool:
    """Whether a second copy says nothing of the latest rows; one row behind is a crash between the two."""
    return kept is None or (heads.get(kept.height) == kept.head and len(heads) - 1 > kept.height + 1)


def _said(body: str) -> dict[str, Any] | None:
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _position(path: Path) -> LedgerPosition | None:
    try:
        kept = json.loads(path.read_text())
        return LedgerPosition(int(kept["height"]), str(kept["head"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _head(bodies: list[str]) -> str:
    head = GENESIS
    for body in bodies:
        head = chained(head, body)
    return head
