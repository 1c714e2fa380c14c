"""How a node is doing, for its operator: gathered from files and from the vault's socket, never sent."""

import json
from pathlib import Path
from typing import Any

import grpc

from client.deployment import Side, side
from client.link.vault_client import VaultClient
from client.settings import Folders
from shared.supervisor import read_state

LATEST_METRICS = 5


def standing(places: Folders) -> dict[str, Any]:
    """Processes, connection, current job, ledger, local metrics; in two containers what each can see."""
    supervisor, half = read_state(places.running), side()
    link = _json(places.link / "state.json") if half.has_link else "in its own container"
    # a container is its process: nothing supervises it but the engine, and the vault answers wherever its socket is
    vault = _vault(places.socket) if half is not Side.WHOLE or supervisor is not None else None
    running = {Side.WHOLE: supervisor is not None, Side.VAULT: vault is not None, Side.LINK: _connected(link)}
    facts: dict[str, Any] = {"running": running[half]}
    if supervisor is not None:
        facts["processes"] = supervisor["processes"]
    facts |= {"link": link, "vault": vault}
    facts["local_metrics"] = _lines(places.metrics)[-LATEST_METRICS:] if half.has_vault else "in the vault's container"
    return facts


def _connected(link: Any) -> bool:
    return isinstance(link, dict) and bool(link.get("connected"))


def _vault(socket: Path) -> dict[str, Any] | str | None:
    client = VaultClient(socket)
    try:
        found = client.status()
    except grpc.RpcError as error:
        slow = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return "busy, and did not answer in time" if slow else None
    finally:
        client.close()
    job = {"run": found.study_run, "round": found.round, "steps_done": found.steps_done}
    return {"busy": found.busy, "ledger_rows": found.ledger_height, "job": job if found.study_run else None}


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
