"""Says what happened in a run's secure sum, from the events that the run store keeps."""

from collections.abc import Sequence
from typing import Any

from server.run_store.values import Event
from shared.secure_sum.roster import Roster

ROSTER = "roster"
ROUND_EVENTS = ("fixed", "signed", "opened", "lost", "blamed")


def roster_event(roster: Roster) -> tuple[str, dict[str, Any]]:
    """Return kind and body of the event that a run's roster was fixed."""
    thresholds = roster.numbers.thresholds
    body = {
        "mode": roster.numbers.mode,
        "nodes": {entry.name: entry.fingerprint for entry in roster.entries},
        "threshold": thresholds.threshold,
        "colluders": thresholds.colluders,
        "roster_sha256": roster.sha256,
    }
    return ROSTER, body


def sum_history(events: Sequence[Event]) -> dict[str, Any] | None:
    """Return the roster of a run, the state of each of its rounds, and of its evaluations if it has any.

    None for a run without a secure sum.

    Args:
        events: of the run, in order.
    """
    roster = next((event.body for event in events if event.kind == ROSTER), None)
    if roster is None:
        return None
    evaluations = _sums([event for event in events if event.body.get("purpose") == "evaluation"])
    rounds = _sums([event for event in events if event.body.get("purpose", "training") == "training"])
    return roster | {"rounds": rounds} | ({"evaluations": evaluations} if evaluations else {})


def _sums(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the state of each sum that some events speak of, by its number."""
    sums = dict[int, dict[str, Any]]()
    for event in events:
        if event.kind in ROUND_EVENTS:
            number = int(event.body["round"])
            one = sums.setdefault(number, {"round": number, "state": "open", "blamed": []})
            one["blamed"] += [blame for blame in _blamed(event) if blame not in one["blamed"]]
            if event.kind != "blamed":
                one["state"] = "fixed" if event.kind == "signed" else event.kind
                one |= {name: event.body[name] for name in ("survivors", "missing", "reason") if name in event.body}
    return [sums[number] for number in sorted(sums)]


def announced(mode: str, fewest_nodes: int, nodes: int, threshold: int, colluders: int) -> str:
    """Return in words what a run with a secure sum will be, as far as it is known before its roster."""
    return (
        f"Its updates only open as a sum ({mode}). With {nodes} nodes: {_trust(threshold, colluders)}. Who has "
        f"approved when the first round begins, {fewest_nodes} nodes or more, is in the run; who comes later is not."
    )


def history_lines(history: dict[str, Any]) -> list[str]:
    """Return the roster and the states of the sums as sentences."""
    nodes, threshold, colluders = history["nodes"], history["threshold"], history["colluders"]
    first = f"Secure sum ({history['mode']}) of {len(nodes)} nodes: {', '.join(nodes)}. {_trust(threshold, colluders)}"
    lines = [first + "."]
    for of, sums in (("Round", history["rounds"]), ("Evaluation after round", history.get("evaluations", []))):
        for one in sums:
            line = f"{of} {one['round']}: {one['state']}, survivors {', '.join(one.get('survivors', [])) or 'none'}"
            if one.get("missing"):
                line += f"; without {', '.join(one['missing'])}"
            if one.get("reason"):
                line += f"; {one['reason']}"
            lines += [line + ".", *(f"{of} {one['round']}: {blame}." for blame in one["blamed"])]
    return lines


def _trust(threshold: int, colluders: int) -> str:
    pool = "pools" if colluders == 1 else "pool"
    return (
        f"{threshold} of them open a sum, and it shows no update while at most {colluders} of them {pool} what they "
        "know with the server"
    )


def _blamed(event: Event) -> list[str]:
    """Return in words who broke a rule."""
    if event.kind == "blamed":
        return [f"the answer of {event.body['name']} breaks a rule of the secure sum ({event.body['code']})"]
    return [_fault(fault) for fault in event.body.get("blamed", [])]


def _fault(fault: dict[str, str]) -> str:
    code, dealer, holder = fault["code"], fault["dealer"], fault["holder"]
    if code == "share":
        return f"{holder} gave another share than {dealer} had announced ({code})"
    if code == "commitment":
        return f"{dealer} dealt shares of another mask than its own ({code})"
    return f"a box from {dealer} to {holder} did not open: one of the two lies ({code})"
