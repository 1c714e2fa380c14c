"""How a node is doing, for its operator: gathered from files and from the vault's socket, never sent."""

import json
from pathlib import Path
from typing import Any

import grpc

from client.settings import Folders
from client.vault_client import VaultClient
from shared.supervisor import read_state

LATEST_METRICS = 5


def standing(places: Folders) -> dict[str, Any]:
    """Processes, connection, current job, ledger, local metrics."""
    supervisor = read_state(places.running)
    facts: dict[str, Any] = {"running": supervisor is not None}
    if supervisor is not None:
        facts["processes"] = supervisor["processes"]
    facts["link"] = _json(places.link / "state.json")
    facts["vault"] = _vault(places.socket) if supervisor is not None else None
    facts["local_metrics"] = _lines(places.metrics)[-LATEST_METRICS:]
    return facts


def _vault(socket: Path) -> dict[str, Any] | None:
    client = VaultClient(socket)
    try:
        found = client.status()
    except grpc.RpcError:
        return None
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
