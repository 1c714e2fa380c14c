"""A node's status for its operator: gathered from files and from the vault's socket, never sent."""

import json
from pathlib import Path
from typing import Any

import grpc

from client.deployment import Deployment, deployment
from client.link.vault_client import VaultClient
from client.settings import Folders
from shared.supervisor import read_state

LATEST_METRICS = 5


def node_status(places: Folders) -> dict[str, Any]:
    """Gather processes, connection, current job, ledger and local metrics; in two containers what each can see."""
    supervisor, here = read_state(places.running), deployment()
    link = _json(places.link / "state.json") if here.has_link else "in its own container"
    # a container is its process: nothing supervises it but the engine, and the vault answers wherever its socket is
    vault = _vault(places.socket) if here is not Deployment.BOTH or supervisor is not None else None
    running = {
        Deployment.BOTH: supervisor is not None,
        Deployment.VAULT: vault is not None,
        Deployment.LINK: _connected(link),
    }
    facts: dict[str, Any] = {"running": running[here]}
    if supervisor is not None:
        facts["processes"] = supervisor["processes"]
    facts |= {"link": link, "vault": vault}
    facts["local_metrics"] = _lines(places.metrics)[-LATEST_METRICS:] if here.has_vault else "in the vault's container"
    return facts


def _connected(link: Any) -> bool:
    return isinstance(link, dict) and bool(link.get("connected"))


def _vault(socket: Path) -> dict[str, Any] | str | None:
    client = VaultClient(socket)
    try:
        reply = client.status()
    except grpc.RpcError as error:
        slow = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return "busy, and did not answer in time" if slow else None
    finally:
        client.close()
    job = {"run": reply.study_run, "round": reply.round, "steps_done": reply.steps_done}
    return {"busy": reply.busy, "ledger_rows": reply.ledger_height, "job": job if reply.study_run else None}


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
