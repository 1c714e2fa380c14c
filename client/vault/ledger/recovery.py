"""Recovery of a damaged ledger, because a person decided to continue: what is missing counts as spent.

| what is wrong | what accepting does |
|---|---|
| the second copy is gone or older, as on a new machine | all that open runs had left is charged |
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.vault.ledger.damage import LedgerDamage, apply_if_allowed, examine
from client.vault.ledger.lock import ledger_lock
from client.vault.ledger.positions import server_copy_of, write_position
from client.vault.ledger.state import LedgerState
from client.vault.ledger.storage import GENESIS, SCHEMA, SCHEMA_VERSION, body_of, chained, ledger_errors, parsed
from shared.errors import LedgerError, SettingsError
from shared.files import private_file
from shared.privacy.releases import SharedGaussian
from shared.protocol.messages import LedgerPosition
from shared.secure_sum.encoding import MOST_NODES

MAY_LOWER = frozenset({"close", "commit", "evaluated"})
"""Rows after a break that are not entered again: a forged one of any other kind can only add to what is spent or
forbidden. What was released is found in the outbox."""
SMALLEST_SHARES = {"roster_sha256": "", "nodes": MOST_NODES, "threshold": MOST_NODES, "colluders": 1}
"""A roster that may be gone counts as the one which leaves a node the least noise of its own."""


def accept(
    path: Path,
    second_copy: Path,
    *,
    datasets: Collection[str],
    patience_s: float = 0.0,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Continue without what is missing, because a person said so.

    Guarantee: accepting never lowers what is spent, and where rows are known to be missing all training on its records
    ends.

    Args:
        path: the ledger.
        second_copy: written anew.
        datasets: every dataset of node.toml: one that the missing rows registered is ended too.
        patience_s: how long to wait for another process to let go of it.
        now: the clock.

    Raises:
        SettingsError: nothing is wrong with it.
        LedgerError: nothing of it can be read, or it cannot be written.
    """
    with ledger_lock(path, patience_s=patience_s), ledger_errors(path):
        damage = examine(path, second_copy)
        if not damage.troubles:
            raise SettingsError("Expected a ledger that waits for a decision, this one is whole.")
        if not damage.unbroken and not damage.after_break:
            raise LedgerError(
                f"Expected rows in the ledger {path}, none can be read.",
                hint="Restore a backup of [node] home, then accept. Without one nobody knows what was spent: "
                "these records are not to be trained on again.",
            )
        moment = now()
        aside = _set_aside(path, moment)
        bodies = _decided(damage, datasets, aside=aside.name, moment=moment)
        _replace(path, bodies)
        write_position(second_copy, LedgerPosition(len(bodies), _head(bodies)))
        server_copy_of(path).unlink(missing_ok=True)


def _decided(damage: LedgerDamage, datasets: Collection[str], *, aside: str, moment: datetime) -> list[str]:
    """Return every body of the new ledger: the unbroken rows to the letter, then what the decision adds."""
    bodies, state = [row.body for row in damage.unbroken], LedgerState()
    for body in bodies:
        apply_if_allowed(state, body)
    latest = max([moment, *(datetime.fromisoformat(json.loads(body)["time"]) for body in bodies)])
    for row in _additions(damage, state, datasets, aside=aside):
        # a row that the rules do not allow has nothing to add: the run is over, or its records are withdrawn
        if apply_if_allowed(state, body := body_of(row, latest)):
            bodies.append(body)
    return bodies


def _additions(
    damage: LedgerDamage, state: LedgerState, datasets: Collection[str], *, aside: str
) -> Iterator[dict[str, Any]]:
    """Yield rows in an order in which each is allowed; the state grows between one and the next."""
    for row in damage.after_break:
        fields = parsed(row.body) or {}
        if fields.get("kind") not in MAY_LOWER:
            yield {name: value for name, value in fields.items() if name not in ("time", "salt")}
    for name, run in list(state.runs.items()):
        if not run.closed:
            if isinstance(run.per_round, SharedGaussian) and not run.per_round.settled:
                yield {"kind": "roster", "run": name, **SMALLEST_SHARES}
            yield from (
                {"kind": "reserve", "run": name, "round": number}
                for number in range(1, run.rounds + 1)
                if number not in run.attempts
            )
            evaluations = run.evaluations
            yield from (
                {"kind": "evaluation", "run": name, "number": number, "adapter_sha256": ""}
                for number in (() if evaluations is None else evaluations.numbers)
                if evaluations is not None and number not in evaluations.attempts
            )
            yield {"kind": "close", "run": name}
    ended = damage.rows_are_missing
    if ended:
        yield from ({"kind": "withdraw", "dataset": name} for name in list(state.limits))
    yield {
        "kind": "accept",
        "troubles": [trouble.value for trouble in damage.troubles],
        "set_aside": aside,
        "gone": [{"height": position.height, "head": position.head} for position in damage.gone],
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


def _head(bodies: list[str]) -> str:
    head = GENESIS
    for body in bodies:
        head = chained(head, body)
    return head
