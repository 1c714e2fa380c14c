"""Rows that a test enters in a ledger, and reads back from it."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import UNDECLARED, Limit, records_row, registration_row


def register(ledger: Ledger, dataset: str, *, epsilon: float, delta: float = 1e-5) -> None:
    """Register a dataset without a record index."""
    ledger.enter(records_row(dataset, (), None) | registration_row(dataset, Limit(epsilon, delta), UNDECLARED))


def tie(ledger: Ledger, dataset: str, others: Iterable[str]) -> None:
    """Make one account of datasets, as if they shared records."""
    ledger.enter(records_row(dataset, others, None))


def rows_of(ledger: Ledger) -> list[dict[str, Any]]:
    """Every row with its height and hash, oldest first, as the file holds them."""
    with closing(sqlite3.connect(ledger.path)) as database:
        rows = database.execute("SELECT height, body, hash FROM rows ORDER BY height").fetchall()
    return [{"height": height, "hash": digest, **json.loads(body)} for height, body, digest in rows]
