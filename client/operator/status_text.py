"""A node's status in sentences, for the person who operates it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from client.link.membership import RENEW_BEFORE, certificate_in_words
from shared.printable import one_line
from shared.processes.running import troubles_of
from shared.terminal import bar

Facts = Mapping[str, Any]
OF_TRAINING = ("time", "run", "round")
"""Names of a metric's line that are no figures."""


def health(facts: Facts) -> list[str]:
    """Return whether the node runs and is connected, for a program that watches: it keeps and passes on what it reads.

    Guarantee: no figure of local metrics and no name of a run is in it.
    """
    return [
        *_state_lines(facts),
        *_link_lines(facts),
        *_certificate_lines(facts["certificate_ends"], datetime.now(UTC)),
    ]


def in_sentences(facts: Facts) -> list[str]:
    """Return what `node_status` gathered as sentences: what runs, what it does, and what waits for a person."""
    return [
        *_state_lines(facts),
        *troubles_of(facts.get("processes", {}), "fedvault-node logs"),
        *_link_lines(facts),
        *_certificate_lines(facts["certificate_ends"], datetime.now(UTC)),
        *_waiting_lines(facts["waiting"]),
        *_job_lines(facts["vault"]),
        *_metric_lines(facts["local_metrics"]),
    ]


def _state_lines(facts: Facts) -> list[str]:
    vault = facts["vault"]
    if facts["state"] == "stopped":
        return ["The node does not run. Start it: fedvault-node start"]
    if facts["state"] == "starting":
        late = "the vault does not answer yet" if vault is None else "the link is connecting"
        return [f"The node is starting up: {late}."]
    if isinstance(vault, str):
        return [f"The node runs; the vault is {vault}."]
    if vault is None:
        return ["The vault does not answer: see fedvault-node logs."]
    return ["The node runs."]


def _link_lines(facts: Facts) -> list[str]:
    link = facts["link"]
    if isinstance(link, str):
        return [f"The link is {link}."]
    if facts["state"] in ("stopped", "starting"):
        return []
    if link is None:
        return ["The link has not run yet."]
    if link["connected"]:
        return [f"Connected to {link['server']} since {_moment(link['since'])}."]
    return [f"Not connected to {link['server']} since {_moment(link['since'])}: {one_line(link['trouble'])}."]


def _certificate_lines(ends: str | None, now: datetime) -> list[str]:
    moment = None if ends is None else datetime.fromisoformat(ends)
    if moment is None or now < moment - RENEW_BEFORE:
        return []
    late = "" if now >= moment else " It could not be renewed so far: see fedvault-node logs."
    return [f"{certificate_in_words(moment, now)}{late}"]


def _waiting_lines(waiting: Mapping[str, Any] | None) -> list[str]:
    if waiting is None:
        return []
    lines = []
    decide, resume = waiting["decide"], waiting["resume"]
    if waiting["ledger"]:
        lines.append(f"The ledger needs you: {waiting['ledger']}")
    if decide:
        studies = "One study waits" if len(decide) == 1 else f"{len(decide)} studies wait"
        lines.append(f"{studies} for your decision: {', '.join(decide)}. See it: fedvault-node show {decide[0]}")
    if resume:
        runs = "One run waits" if len(resume) == 1 else f"{len(resume)} runs wait"
        lines.append(
            f"{runs} for you, because rounds failed or were lost: {', '.join(resume)}. "
            f"Look at fedvault-node logs, then: fedvault-node resume {resume[0]}"
        )
    return lines


def _job_lines(vault: Any) -> list[str]:
    if not isinstance(vault, dict):
        return []
    rows = f"The ledger has {_counted(vault['ledger_rows'], 'row')}."
    job = vault["job"]
    if job is None:
        return ["Nothing is being trained.", rows]
    if not vault["busy"]:
        return [f"Nothing is being trained. Last was {_round(job)} of {job['run']}.", rows]
    rounds, steps, done = job.get("rounds", 0), job.get("steps", 0), job["steps_done"]
    if not steps:
        return [f"{job['run']}: {_round(job)}: training step {done}", rows]
    progress = bar((job["round"] - 1) * steps + done, rounds * steps)
    return [f"{job['run']}: {_round(job)} {progress}: training step {done} of {steps}", rows]


def _round(job: Mapping[str, Any]) -> str:
    return f"round {job['round']}" + (f" of {job['rounds']}" if "rounds" in job else "")


def _metric_lines(metrics: Any) -> list[str]:
    if isinstance(metrics, str):
        return [f"Metrics on held-out records are {metrics}."]
    return [_metric_line(line) for line in metrics]


def _metric_line(line: Mapping[str, Any]) -> str:
    figures = {name.replace("_", " "): value for name, value in line.items() if name not in OF_TRAINING}
    words = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))
    return f"For your eyes only, round {line['round']} of {line['run']} on held-out records: {words or 'no figures'}."


def _moment(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
