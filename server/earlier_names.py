"""Replaces names that earlier versions wrote into checkpoints and the run store, on reading.

Files already written stay as they are; nothing else in the server knows the earlier names.
"""

from typing import Any

RECORD_KEYS = {"quarantined": "rejected"}
OUTCOMES = {"skipped": "lost"}
EVENT_KINDS = {"stances": "present"}


def read_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a round's record, or an event that carries one, under today's keys."""
    renamed = {RECORD_KEYS.get(key, key): value for key, value in record.items()}
    return (
        renamed | {"outcome": OUTCOMES.get(renamed["outcome"], renamed["outcome"])} if "outcome" in renamed else renamed
    )


def read_event_kind(kind: str) -> str:
    """Return an event's kind by today's name."""
    return EVENT_KINDS.get(kind, kind)
