"""A node's status for its operator: gathered from files and from the vault's socket, never sent."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from client.deployment import Deployment, deployment
from client.link.membership import membership
from client.link.vault_client import VaultClient
from client.settings import Folders
from client.vault.ledger.ledger import Ledger
from client.vault.records.approved_runs import ApprovedRuns
from client.vault.review.offers import Offers
from shared.errors import FedVaultError
from shared.processes.running import is_starting, read_state

LATEST_METRICS = 5
LEDGER_PATIENCE_S = 5.0
STATES = ("runs", "starting", "stopped", "troubled")
"""Of a node: it answers; it does not yet; nothing runs; something runs, and does not answer as it should."""


def node_status(places: Folders) -> dict[str, Any]:
    """Gather processes, connection, current job, ledger and local metrics; in two containers what each can see."""
    supervisor, here = read_state(places.running), deployment()
    link = _json(places.link / "state.json") if here.has_link else "in its own container"
    # a container is its process: nothing supervises it but the engine, and the vault answers wherever its socket is
    vault = _vault(places) if here is not Deployment.BOTH or supervisor is not None else None
    running = {
        Deployment.BOTH: supervisor is not None,
        Deployment.VAULT: vault is not None,
        Deployment.LINK: _connected(link),
    }
    facts: dict[str, Any] = {"running": running[here]}
    if supervisor is not None:
        facts["processes"] = supervisor["processes"]
    facts |= {"link": link, "vault": vault}
    facts["certificate_ends"] = _certificate_ends(places) if here.has_link else None
    facts["local_metrics"] = metric_lines(places)[-LATEST_METRICS:] if here.has_vault else "in the vault's container"
    facts["state"] = _state(facts, datetime.now(UTC)) if here is Deployment.BOTH else STATES[0 if running[here] else 3]
    facts["waiting"] = waiting(places) if here.has_vault else None
    return facts


def waiting(places: Folders) -> dict[str, Any]:
    """Return what waits for the operator: runs to decide on, runs to resume, and why the ledger cannot tell, if so."""
    decide, resume = list[str](), list[str]()
    try:
        offers = Offers(places.offers).all()
        if not places.ledger.exists():
            return {"decide": [offered.run for offered in offers if not offered.rejected], "resume": [], "ledger": ""}
        with Ledger(places.ledger, second_copy=places.second_copy, patience_s=LEDGER_PATIENCE_S) as ledger:
            runs = ledger.state.runs
            decide = [offered.run for offered in offers if not offered.rejected and offered.run not in runs]
            troubles = [ledger.state.troubles(dataset) for dataset in ledger.state.limits]
            resume = sorted({run for rounds_by_run in troubles for run in rounds_by_run})
    except FedVaultError as error:
        return {"decide": [], "resume": [], "ledger": f"{error} {error.hint}".strip()}
    return {"decide": decide, "resume": resume, "ledger": ""}


def metric_lines(places: Folders) -> list[Any]:
    """Return every measurement on this node's held-out records, oldest first."""
    return _lines(places.metrics)


def _state(facts: dict[str, Any], now: datetime) -> str:
    if not facts["running"]:
        return "stopped"
    processes, link = facts.get("processes", {}), facts["link"]
    if isinstance(facts["vault"], dict) and _connected(link) and not _is_stale(link, processes.get("link")):
        return "runs"
    young = {name: is_starting(processes.get(name), now) for name in ("vault", "link")}
    if (facts["vault"] is None and young["vault"]) or (_is_stale(link, processes.get("link")) and young["link"]):
        return "starting"
    return "troubled"


def _is_stale(link: Any, process: dict[str, Any] | None) -> bool:
    """Return true if the link's state was written by an earlier process than the one that runs."""
    written = link.get("since") if isinstance(link, dict) else ""
    started = (process or {}).get("since") or ""
    return not written or datetime.fromisoformat(written) < datetime.fromisoformat(started or written)


def _connected(link: Any) -> bool:
    return isinstance(link, dict) and bool(link.get("connected"))


def _vault(places: Folders) -> dict[str, Any] | str | None:
    if places.socket.exists() and not os.access(places.socket, os.R_OK | os.W_OK):
        return "another user's, and not to be asked by this one"
    client = VaultClient(places.socket)
    try:
        reply = client.status()
    except grpc.RpcError as error:
        slow = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return "busy, and did not answer in time" if slow else None
    finally:
        client.close()
    job = {"run": reply.study_run, "round": reply.round, "steps_done": reply.steps_done}
    known = job | _totals(places, reply.study_run) if reply.study_run else None
    return {"busy": reply.busy, "ledger_rows": reply.ledger_height, "job": known}


def _totals(places: Folders, run: str) -> dict[str, int]:
    """Return how many rounds a run has, and how many steps a round, if its study is here."""
    try:
        study = ApprovedRuns(places.approved).study(run)
    except (FedVaultError, OSError, ValueError):
        return {}
    return {"rounds": study.federation.rounds, "steps": study.training.local_steps}


def _certificate_ends(places: Folders) -> str | None:
    try:
        return membership(places.link).expires.isoformat()
    except (FedVaultError, OSError, ValueError):
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return []
