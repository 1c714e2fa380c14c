"""Writes `ledger-v2.db` beside it: a ledger as version 2 left it, with every kind of row that version 1 had not.

It shares no code with FedVault, so that it goes on writing version 2 whatever becomes of the ledger.
"""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE rows (height INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL UNIQUE) STRICT;
CREATE TRIGGER rows_stay BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER rows_last BEFORE DELETE ON rows BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER rows_in_order BEFORE INSERT ON rows WHEN NEW.height <> (SELECT coalesce(max(height), 0) + 1 FROM rows)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
PRAGMA user_version = 2;
"""
PER_ROUND = {
    "count": 6,
    "mechanism": "poisson-subsampled-discrete-gaussian",
    "noise_multiplier": 1.5,
    "sampling_rate": 0.1,
    "sensitivity": 1.0,
}
APPROVAL = {"kind": "approve", "study_sha256": "5" * 64, "per_round": PER_ROUND, "orders": [8.0]}
TERMS = {"delta": 1e-05, "unit": "record", "declared_size": 60, "holdout": 0.1, "identity_version": 2}
ENTERED = {"ties": [], "index": None}
ROWS = [
    {"kind": "register", "dataset": "ward", "epsilon": 3.0} | TERMS | ENTERED,
    APPROVAL | {"dataset": "ward", "run": "r-1", "rounds": 4},
    {"kind": "reserve", "run": "r-1", "round": 1},
    {"kind": "fail", "run": "r-1", "round": 1},
    {"kind": "resume", "run": "r-1", "rounds": [1]},
    {"kind": "register", "dataset": "renamed", "epsilon": 2.5} | TERMS | ENTERED | {"ties": ["ward"]},
    {"kind": "records", "dataset": "renamed"} | ENTERED,
    {"kind": "date", "row": 7, "dated": "2026-01-07T08:00:00+00:00"},
    APPROVAL | {"dataset": "renamed", "run": "r-2", "rounds": 3},
    {"kind": "close", "run": "r-1"},
    {"kind": "accept", "troubles": [], "set_aside": "ledger.db.set-aside", "gone": [], "withdrawn": []},
]


def write(path: Path) -> None:
    """Make the file anew, the same each time."""
    path.unlink(missing_ok=True)
    head = "0" * 64
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
        for height, row in enumerate(ROWS, start=1):
            entered = row | {"time": f"2026-01-{height:02d}T08:00:00+00:00", "salt": f"{height:016x}"}
            body = json.dumps(entered, sort_keys=True, separators=(",", ":"))
            head = hashlib.sha256(f"{head}\n{body}".encode()).hexdigest()
            database.execute("INSERT INTO rows VALUES (?, ?, ?)", (height, body, head))
        database.commit()


if __name__ == "__main__":
    write(Path(__file__).with_name("ledger-v2.db"))
