"""Writes `ledger-v4.db` and `ledger-v5.db` beside it: ledgers with every kind of row of evaluations and secure sums.

Version 4 has evaluations whose noise is a node's own, version 5 also such as share it. It shares no code with FedVault,
so that it goes on writing the same whatever becomes of the ledger.
"""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE rows (height INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL UNIQUE) STRICT;
CREATE TRIGGER rows_stay BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER rows_last BEFORE DELETE ON rows BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER rows_in_order BEFORE INSERT ON rows WHEN NEW.height <> (SELECT coalesce(max(height), 0) + 1 FROM rows)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
PRAGMA user_version = %d;
"""
Rows = list[dict[str, Any]]
GRID = 2.0**-24
ROUND = {"noise_multiplier": 1.5, "sampling_rate": 0.1, "count": 1, "sensitivity": 1.0, "grid": GRID}
NO_ROSTER = {"nodes": 0, "threshold": 0, "colluders": 0}
OWN = {"mechanism": "poisson-subsampled-discrete-gaussian", **ROUND}
SHARED = {"mechanism": "poisson-subsampled-shared-gaussian", **ROUND, **NO_ROSTER}
OWN_COUNTS = {"mechanism": "discrete-gaussian-counts", "noise_multiplier": 6.0, "count": 1, "sensitivity": 1.0}
SHARED_COUNTS = {"mechanism": "shared-discrete-gaussian-counts", **ROUND, **NO_ROSTER} | {
    "noise_multiplier": 6.0,
    "sampling_rate": 1.0,
}
SIZES = {"nodes": 4, "threshold": 3, "colluders": 1}
REGISTERED = {
    "kind": "register",
    "dataset": "ward",
    "epsilon": 30.0,
    "delta": 1e-05,
    "unit": "record",
    "declared_size": 60,
    "holdout": 0.1,
    "identity_version": 2,
    "ties": [],
    "index": None,
}


def _approval(run: str, per_round: dict[str, Any], each: dict[str, Any], **more: Any) -> dict[str, Any]:
    evaluation = {"each": each, "numbers": [2, 4]}
    row = {"kind": "approve", "dataset": "ward", "run": run, "study_sha256": "5" * 64, "rounds": 4, "orders": [8.0]}
    return row | {"per_round": per_round, "evaluation": evaluation, **more}


def _summed(run: str) -> Rows:
    """A round and the evaluation after it, both in a secure sum."""
    return [
        {"kind": "roster", "run": run, "roster_sha256": "a" * 64, **SIZES},
        {"kind": "reserve", "run": run, "round": 2},
        {"kind": "commit", "run": run, "round": 2, "released_sha256": "b" * 64},
        {"kind": "survivors", "run": run, "round": 2, "purpose": "training", "sha256": "c" * 64},
        {"kind": "evaluation", "run": run, "number": 2, "adapter_sha256": "d" * 64},
        {"kind": "evaluated", "run": run, "number": 2, "released_sha256": "e" * 64},
        {"kind": "survivors", "run": run, "round": 2, "purpose": "evaluation", "sha256": "f" * 64},
    ]


ROWS_4: Rows = [
    REGISTERED,
    _approval("plain", OWN, OWN_COUNTS | {"grid": GRID}),
    {"kind": "reserve", "run": "plain", "round": 1},
    {"kind": "commit", "run": "plain", "round": 1, "released_sha256": "b" * 64},
    {"kind": "evaluation", "run": "plain", "number": 2, "adapter_sha256": "d" * 64},
    {"kind": "evaluated", "run": "plain", "number": 2, "released_sha256": "e" * 64},
    {"kind": "evaluation", "run": "plain", "number": 4, "adapter_sha256": "d" * 64},
    {"kind": "evaluation-failed", "run": "plain", "number": 4},
    {"kind": "evaluated", "run": "plain", "number": 4, "released_sha256": "e" * 64},
    {"kind": "resume", "run": "plain", "rounds": [], "evaluations": [4]},
]
ROWS_5: Rows = [
    *ROWS_4,
    _approval("masked", OWN, OWN_COUNTS | {"grid": GRID}),
    *_summed("masked"),
    _approval("shared", SHARED, SHARED_COUNTS, epsilon_if_all_collude=None, order_if_all_collude=None),
    *_summed("shared"),
    {"kind": "close", "run": "shared"},
]


def write(path: Path, version: int) -> str:
    """Make a file anew, the same each time; returns the hash of its last row."""
    path.unlink(missing_ok=True)
    head = "0" * 64
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA % version)
        for height, row in enumerate({4: ROWS_4, 5: ROWS_5}[version], start=1):
            entered = row | {"time": f"2026-11-{height:02d}T08:00:00+00:00", "salt": f"{height:016x}"}
            body = json.dumps(entered, sort_keys=True, separators=(",", ":"))
            head = hashlib.sha256(f"{head}\n{body}".encode()).hexdigest()
            database.execute("INSERT INTO rows VALUES (?, ?, ?)", (height, body, head))
        database.commit()
    return head


if __name__ == "__main__":
    for number in (4, 5):
        write(Path(__file__).with_name(f"ledger-v{number}.db"), number)
