"""A power supply in front of the disk: it fails at a chosen durable step, in a chosen way."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

import client.vault.ledger.budget
from shared.privacy.accounting import epsilon_rdp

Kind = Literal["lost", "survived", "full"]
KINDS: tuple[Kind, ...] = ("lost", "survived", "full")


class Cut(BaseException):
    """The power goes: nothing runs after this."""


@dataclass
class Power:
    """Counts durable steps, and lets one of them fail.

    A step is a commit of SQLite, an fsync of a file or of a folder, or a rename; each has a before and an after.
    """

    at: int | None = None
    kind: Kind = "survived"
    count: int = 0
    undo: Callable[[], None] = field(default=lambda: None)
    """What the disk forgets if the power goes now."""
    trips: Callable[[], None] | None = None

    def step(self, error: type[Exception] = OSError) -> None:
        self.count += 1
        if self.at is None or self.count != self.at:
            return
        if self.trips is not None:
            self.trips()
        if self.kind == "full":
            raise error("disk full")
        if self.kind == "lost":
            self.undo()
        raise Cut

    def settled(self) -> None:
        self.undo = lambda: None


@contextmanager
def power_supply(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Power], None]]:
    """Put a power supply in front of the disk; yields what sets when it fails."""
    now, flushed = Power(), set[int]()
    replace, fsync, connect = Path.replace, os.fsync, sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            durable = statement.startswith("INSERT")
            if durable:
                now.step(sqlite3.OperationalError)
            done = super().execute(statement, *values)
            if durable:
                now.step(sqlite3.OperationalError)
            return done

    def renamed(self: Path, target: Path) -> Path:
        old, content = target.read_bytes() if target.exists() else None, self.stat().st_ino
        assert content in flushed, "renamed before its content was durable"
        flushed.discard(content)
        now.step()
        done = replace(self, target)

        def back() -> None:
            target.unlink() if old is None else target.write_bytes(old)

        now.undo = back  # until the folder is synced, the disk may have the old entry
        now.step()
        return done

    def synced(opened: int) -> None:
        torn = Path(f"/proc/self/fd/{opened}").resolve()
        if torn.is_file():
            now.undo = lambda: os.truncate(torn, torn.stat().st_size // 2)
        now.step()
        fsync(opened)
        flushed.add(os.fstat(opened).st_ino)
        now.settled()
        now.step()

    def supply(power: Power) -> None:
        nonlocal now
        now = power

    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Connection, **k))
    # a pure function, asked the same few things thousands of times
    cached = cache(lambda releases, delta, order: epsilon_rdp(list(releases), delta, order=order))
    monkeypatch.setattr(
        client.vault.ledger.budget,
        "epsilon_rdp",
        lambda releases, delta, order=None: cached(tuple(releases), delta, order),
    )
    yield supply
