"""The round that is being asked: who has answered what, who is waited for, and how long the run still takes. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from server.operator.reasons import OF_REASON, in_words
from server.run_store.values import Event, Run

ACCEPTED = "accepted"
TYPICAL = 8
"""Rounds whose seconds say how long the next ones take."""
NAMED = 24
"""Nodes that are named one by one; of more the rest is counted."""


class Answer(NamedTuple):
    """One node's answer to a round."""

    node: str
    words: str
    rejected: bool
    """An update came and was not used; otherwise none came."""


class UnderWay(NamedTuple):
    """A round that is being asked."""

    number: int
    ask: int
    asked: int
    accepted: int
    others: Sequence[Answer]
    """Answers without an update that was used."""
    waits_for: Sequence[str]
    began: str
    gone: Sequence[str]
    """Of those that are waited for: whose connection broke."""

    @property
    def answered(self) -> int:
        """Return how many nodes have answered."""
        return self.accepted + len(self.others)


def under_way(events: Sequence[Event], finished: int, names: Mapping[int, str]) -> UnderWay | None:
    """Return the round that is being asked; None if there is none.

    Args:
        events: of the run, in order, since its last finished round at the least.
        finished: that round's number.
        names: of nodes.
    """
    asked, verdicts, gone, ask, began = set[int](), dict[int, str](), set[int](), 0, ""
    for event in events:
        body = event.body
        if body.get("round") != finished + 1:
            continue
        if event.kind == "asked":
            again = set(body["nodes"])
            asked, ask, began, gone = asked | again, body.get("ask", 1), began or event.time, gone - again
            verdicts = {node: verdict for node, verdict in verdicts.items() if node not in again}
        elif event.kind == "answered" and "node" in body:
            verdicts[body["node"]] = str(body["verdict"])
            gone.discard(body["node"])
        elif event.kind == "gone":
            gone.add(body["node"])
    if not asked:
        return None

    def name(node: int) -> str:
        return names.get(node, str(node))

    others = [
        Answer(name(node), in_words(verdict), rejected=verdict in OF_REASON)
        for node, verdict in sorted(verdicts.items(), key=lambda one: name(one[0]))
        if verdict != ACCEPTED
    ]
    waits = asked - verdicts.keys()
    return UnderWay(
        number=finished + 1,
        ask=ask,
        asked=len(asked),
        accepted=len(verdicts) - len(others),
        others=others,
        waits_for=sorted(map(name, waits)),
        began=began,
        gone=sorted(map(name, gone & waits)),
    )


def minutes_left(run: Run, records: Sequence[Mapping[str, Any]], began: str, now: datetime) -> float | None:
    """Return how long a run still takes if its rounds go on as the last ones did; None before the first.

    Args:
        run: its rounds.
        records: of the last finished rounds.
        began: when the round under way did; empty if none is.
        now: the time.
    """
    seconds = [float(sum(record["seconds"].values())) for record in records[-TYPICAL:]]
    if not seconds:
        return None
    left = (run.rounds - run.round) * sum(seconds) / len(seconds)
    spent = (now - datetime.fromisoformat(began)).total_seconds() if began else 0.0
    return max(0.0, left - min(max(0.0, spent), sum(seconds) / len(seconds))) / 60


def in_time(minutes: float | None) -> str:
    """Write how long something still takes."""
    if minutes is None:
        return "not known before the first round"
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"about {minutes:.0f} minute{'' if round(minutes) == 1 else 's'}"
    return f"about {minutes / 60:.0f} hours"


def listed(names: Sequence[str]) -> str:
    """Name nodes, and count those beyond what a person reads."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
