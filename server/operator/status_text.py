"""A server's status in sentences: what runs, how far the run is, and what it waits for."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from server.operator.round_text import Names, in_flight_line, named, node_names, round_in_flight
from shared.errors import DataError
from shared.processes.running import troubles_of
from shared.terminal import bar

if TYPE_CHECKING:
    from server.run_store.store import Store
    from server.run_store.values import Event, Run

MEGABYTE = 2**20
OVER = frozenset({"finished", "stopped", "failed"})
"""States of runs that come to nothing more by themselves."""


def in_sentences(facts: Mapping[str, Any], store: "Store", present: Collection[int] | None) -> list[str]:
    """Return a server's status as sentences.

    Args:
        facts: what runs and answers, and when certificates end.
        store: the run store.
        present: Flower's numbers of the nodes that are present; None if that is not known.
    """
    return [
        *server_lines(facts),
        *_run_lines(store),
        _nodes_line(store, present),
        f"Flower's database holds {facts['flower_database_bytes'] / MEGABYTE:.1f} MiB.",
        *certificate_lines(facts),
    ]


def server_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return sentences on what runs, what does not answer, and what keeps ending."""
    return [
        *_state_lines(facts),
        *_taken_lines(facts),
        *troubles_of(facts["processes"], "fedvault-server logs"),
    ]


def certificate_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return sentences on when certificates end, and on an authority that is being rolled over."""
    return [*facts["certificates"], *_roll_over_lines(facts["without_new_authority"])]


def waits_for(run: "Run", store: "Store") -> str:
    """Return one sentence on what a run that has not begun waits for: another run, or approvals and nodes."""
    ahead = store.next_wanted()
    if run.state != "waiting" and ahead is not None and ahead.id != run.id:
        return f"{run.id} waits for {ahead.id}: one run is driven at a time."
    try:
        answers, quorum = _latest_answers(store.events(run.id)), run.study.federation.quorum
    except DataError as error:
        return f"{run.id} cannot begin. {error}"
    if run.reason.startswith("cannot"):
        return (
            f"{run.id} {run.reason}. Queue a study that they accept, or invite more nodes: fedvault-server invite NAME"
        )
    if run.state == "waiting" and not run.reason.startswith("waiting for"):
        return f"{run.id} steps aside for other runs while it is tried again: {run.reason}."
    if run.reason.startswith("waiting for nodes"):
        return f"{run.id} is {run.reason}."
    names = node_names(store)
    approved = answers.get("approved", [])
    approvals = len(approved) if isinstance(approved, list) else int(approved)
    enrolled = [node for node in store.nodes() if node.status == "enrolled"]
    sentence = f"{run.id} waits for approvals: {approvals} of {quorum} nodes."
    if answers:
        sentence += f" {'; '.join(_answer(status, nodes, names) for status, nodes in sorted(answers.items()))}."
    if len(enrolled) < quorum:
        few = (
            "no node is" if not enrolled else "only one node is" if len(enrolled) == 1 else f"only {len(enrolled)} are"
        )
        return f"{sentence} {few.capitalize()} enrolled: fedvault-server invite NAME"
    return f"{sentence} Their operators decide: fedvault-node approve {run.id}"


def progress_line(run: "Run", store: "Store") -> str:
    """Return one line about a run: how far it is, or what it waits for."""
    events, names = store.events_since_round(run.id), node_names(store)
    in_flight = round_in_flight(events, run.round) if run.state == "running" else None
    if in_flight is None and run.round == 0:
        return waits_for(run, store)
    if run.state == "waiting":
        return f"{run.id}: {run.round} of {run.rounds} rounds {bar(run.round, run.rounds)}: {run.reason}"
    number = min(run.round + 1, run.rounds)
    line = f"{run.id}: round {number} of {run.rounds} {bar(run.round, run.rounds)}"
    return line if in_flight is None else f"{line}: {in_flight_line(in_flight, names).partition(': ')[2]}"


def paid_round(run: "Run", store: "Store") -> tuple[str, list[int]]:
    """Return a sentence on the round that nodes are paying for now, and their numbers; nothing if there is none."""
    # one that waits may do so within a round, which is paid for all the same
    events = store.events_since_round(run.id) if run.state in ("running", "waiting") else []
    asks = [event.body for event in events if event.kind == "asked" and event.body["round"] == run.round + 1]
    nodes = sorted({node for ask in asks for node in ask["nodes"]})
    if not nodes:
        return "", []
    names = named(nodes, node_names(store))
    return (
        f"Round {run.round + 1} of {run.id} is under way. Asked were {names}, and a round is paid for when it begins.",
        nodes,
    )


def _state_lines(facts: Mapping[str, Any]) -> list[str]:
    silent = " and ".join(facts["silent"])
    verb = "do" if len(facts["silent"]) > 1 else "does"
    return {
        "runs": [f"The server runs at {facts['address']}."],
        "starting": [f"The server is starting up: {silent or 'a process'} {verb} not answer yet."],
        "stopped": ["The server does not run. Start it: fedvault-server start"],
        "troubled": [f"The server runs, but {silent or 'a process'} {verb} not answer: see fedvault-server logs."],
    }[facts["state"]]


def _roll_over_lines(late: Collection[str] | None) -> list[str]:
    if late is None:
        return []
    if not late:
        return ["Every node knows the new authority: fedvault-server halt, then fedvault-server renew --finish"]
    return [f"The authority is being rolled over. Nodes that have not heard of the new one: {', '.join(late)}."]


def _taken_lines(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"Another program listens on the port that {key} names: stop it, or change {key} in server.toml."
        for key in facts.get("taken", ())
    ]


def _run_lines(store: "Store") -> list[str]:
    wanted = store.next_wanted()
    if wanted is None:
        return ["No run is wanted. Queue one: fedvault-server run study.toml"]
    behind = [run for run in store.runs() if run.wanted and run.state not in OVER and run.id != wanted.id]
    lines = [f"{wanted.id} is a run of the study {wanted.study_name!r}.", progress_line(wanted, store)]
    if behind:
        lines.append(f"{len(behind)} more {'run waits' if len(behind) == 1 else 'runs wait'} behind it.")
    return lines


def _nodes_line(store: "Store", present: Collection[int] | None) -> str:
    nodes = store.nodes()
    enrolled = [node for node in nodes if node.status == "enrolled"]
    line = f"{len(enrolled)} {'node is' if len(enrolled) == 1 else 'nodes are'} enrolled"
    if present is not None:
        here = [node.name for node in enrolled if node.node_id in present]
        line += f", {len(here)} present" + (f" ({', '.join(here)})" if here else "")
    invited = sum(node.status == "invited" for node in nodes)
    return (
        f"{line}; {invited} {'invite is' if invited == 1 else 'invites are'} not used yet." if invited else f"{line}."
    )


def _latest_answers(events: "Sequence[Event]") -> dict[str, Any]:
    bodies = [event.body for event in events if event.kind == "present"]
    return bodies[-1] if bodies else {}


def _answer(status: str, nodes: Any, names: Names) -> str:
    return f"{status.replace('_', ' ')}: {named(nodes, names)}"
