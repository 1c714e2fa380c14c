"""Say in words what happened in a run: rounds, reasons, silence, and the round that is being asked."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from server.operator.reasons import in_words, reasons_of
from server.rounds.attendance import sits_out_until
from server.rounds.round import MOST_ASKS

if TYPE_CHECKING:
    from server.run_store.store import Store
    from server.run_store.values import Event

Names = dict[str, str]
"""Names of nodes by Flower's number."""


def node_names(store: "Store") -> Names:
    """Return the name of every node by Flower's number, as text: a key of JSON."""
    return {str(number): name for number, name in store.names().items()}


def _sum_of(body: Mapping[str, Any]) -> str:
    """Name what a secure sum adds up."""
    return f"{'evaluation after ' if body.get('purpose') == 'evaluation' else ''}round {body['round']}"


def event_line(event: "Event", names: Names) -> str:
    """Return an event as one line of text."""
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "present": lambda body: _present_line(body, names),
        "asked": lambda body: _asked_line(body, names),
        "gone": lambda body: f"round {body['round']}: {named([body['node']], names)} has lost its connection",
        "answered": lambda body: _answered_line(body, names),
        "round": lambda body: _round_line(body, names),
        "roster": lambda body: f"roster of the secure sum: {', '.join(body['nodes'])}",
        "fixed": lambda body: f"{_sum_of(body)}: survivors {', '.join(body['survivors'])}",
        "signed": lambda body: f"{_sum_of(body)}: survivors signed by {', '.join(body['by'])}",
        "opened": lambda body: f"{_sum_of(body)}: the sum of {body['nodes']} nodes is open",
        "lost": lambda body: f"{_sum_of(body)}: the sum is lost: {body['reason']}",
        "blamed": lambda body: f"{_sum_of(body)}: {body['name']} broke a rule of the secure sum: {body['code']}",
        "evaluating": lambda body: f"evaluation after round {body['number']} asks {named(body['nodes'], names)}",
        "counted": lambda body: _counted_line(body, names),
        "evaluated": lambda body: f"the evaluation after round {body['number']} is over",
    }
    kind, body = event.kind, event.body
    line = lines[kind](body) if kind in lines else f"{kind} {body.get('reason', '')}".strip()
    return f"{event.time[11:19]}  {line}"


def round_row(record: dict[str, Any], evaluation: dict[str, Any] | None, names: Names) -> dict[str, str]:
    """Return a round's record as a row of text."""

    def name(node: Any) -> str:
        return named([node], names)

    figures = evaluation or {}
    return {
        "round": str(record["round"]),
        "outcome": record["outcome"],
        "asks": str(record.get("asks", 1)),
        "accepted": named(record["accepted"], names),
        "refused": ", ".join(f"{name(entry['node'])} ({entry['status']})" for entry in record["refused"]),
        "rejected": ", ".join(f"{name(entry['node'])} ({entry['reason']})" for entry in record["rejected"]),
        "missing": named(record["missing"], names),
        "seconds": f"{sum(record['seconds'].values()):.1f}",
        "evaluation": ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if isinstance(value, float)),
    }


def reason_lines(records: Sequence[dict[str, Any]], events: "Sequence[Event]", names: Names) -> list[str]:
    """Return one line for each node and reason of the last round's answers, or of the answers to the offer before it.

    Args:
        records: of finished rounds, in order.
        events: of the run, in order.
        names: of nodes.
    """
    reasons = {pair: record["round"] for record in records for pair in reasons_of(record)}
    lines = [f"round {number}: {named([node], names)}: {in_words(code)}" for (node, code), number in reasons.items()]
    present = next((event.body for event in reversed(events) if event.kind == "present"), {})
    waiting = [(nodes, status) for status, nodes in sorted(present.items()) if status not in ("approved", "trained")]
    answers = [(named(nodes, names), in_words(status)) for nodes, status in waiting if status != "no_answer_yet"]
    return lines + [f"to the offer: {who}: {words}" for who, words in answers]


def silence_lines(records: Sequence[dict[str, Any]], names: Names) -> list[str]:
    """Return one line for each node that kept missing rounds and sits out the next one.

    Args:
        records: of finished rounds, in order.
        names: of nodes.
    """
    finished = records[-1]["round"] if records else 0
    silent = [(node, until) for node, until in sits_out_until(records).items() if finished < until]
    consequence = "it is asked only if there is no quorum without it."
    return [f"{named([node], names)} kept missing rounds: up to round {until} {consequence}" for node, until in silent]


def round_in_flight(events: "Sequence[Event]", finished: int) -> dict[str, Any] | None:
    """Return the round that is being asked, which ask of how many it is, and whose answers are still to come.

    Args:
        events: of a run, in order.
        finished: its last finished round.
    """
    asked, answered, ask = set[int](), set[int](), 0
    for event in events:
        if event.body.get("round") == finished + 1 and event.kind == "asked":
            asked, ask = asked | set(event.body["nodes"]), event.body.get("ask", 1)
            answered -= asked & set(event.body["nodes"])  # a new process asks everybody anew
        elif event.body.get("round") == finished + 1 and event.kind == "answered" and "node" in event.body:
            answered.add(event.body["node"])
    waits_for = sorted(asked - answered)
    return {"round": finished + 1, "ask": ask, "most_asks": MOST_ASKS, "waits_for": waits_for} if asked else None


def in_flight_line(in_flight: dict[str, Any], names: Names) -> str:
    """Return one line about the round that is being asked."""
    waits = named(in_flight["waits_for"], names) or "nobody"
    return f"round {in_flight['round']}: ask {in_flight['ask']} of at most {in_flight['most_asks']}, waits for {waits}"


def _present_line(body: dict[str, Any], names: Names) -> str:
    groups = (f"{_state(status)}: {named(nodes, names)}" for status, nodes in sorted(body.items()))
    return "present: " + ("; ".join(groups) or "nobody")


def _state(status: str) -> str:
    return in_words(status) if status.startswith("refused_") else status.replace("_", " ")


def _asked_line(body: dict[str, Any], names: Names) -> str:
    ask = f", ask {body['ask']} of at most {MOST_ASKS}," if body.get("ask", 1) > 1 else ""
    again = f"; again: {named(body['again'], names)}" if body.get("again") else ""
    return f"round {body['round']}{ask} asks {named(body['nodes'], names) or 'nobody who is present'}{again}"


def _answered_line(body: dict[str, Any], names: Names) -> str:
    line = f"round {body['round']}: {body['answered']} of {body['asked']} answered"
    return f"{line}, {named([body['node']], names)}: {in_words(body['verdict'])}" if "node" in body else line


def _counted_line(body: dict[str, Any], names: Names) -> str:
    who = named([body["node"]], names)
    return f"evaluation after round {body['number']}, {who}: {in_words(body['verdict'])}"


def _round_line(body: dict[str, Any], names: Names) -> str:
    row = round_row(body, body.get("evaluation"), names)
    return "  ".join([f"round {row.pop('round')} {row.pop('outcome')}", *(f"{k}: {v}" for k, v in row.items() if v)])


def named(nodes: Any, names: Names) -> str:
    """Return names of nodes for their numbers; an older store kept how many there were."""
    return ", ".join(names.get(str(node), str(node)) for node in nodes) if isinstance(nodes, list) else str(nodes)
