"""Words of `make federation`: where everything is, what to type next, and how to end it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def guide(
    folder: Path, nodes: Sequence[str], run: str, shown: Mapping[str, Any], address: tuple[str, int]
) -> list[str]:
    """Return the lines that tell a newcomer what is there and what to type, in order.

    Args:
        folder: of the federation, as it was typed.
        nodes: by name; the last one is the newcomer's.
        run: the study's.
        shown: the run as `show --json` prints it.
        address: of the server.
    """
    *others, yours = nodes
    node, server = f"--config {folder}/{yours}/node.toml", f"--home {folder}/server"
    program = {"node": ".venv/bin/fedvault-node", "server": ".venv/bin/fedvault-server"}
    return [
        "",
        f"A server and {len(nodes)} nodes run on this machine, over TLS, with real texts that people rated.",
        "",
        f"  {folder}/server   the server, at {address[0]}:{address[1]}",
        *(f"  {folder}/{name}   a node; it has approved the study" for name in others),
        f"  {folder}/{yours}   your node",
        "",
        f"{folder}/study.toml is offered as {run}, and needs all {len(nodes)} nodes. {_state(shown, yours)}",
        "",
        "Decide, as the operator of your node (client/README.md explains each):",
        f"  {program['node']} show {run} {node}",
        f"  {program['node']} doctor {run} {node}",
        f'  {program["node"]} approve {run} --by "Your Name" --note "why" {node}',
        "Watch, as both operators:",
        f"  {program['server']} status --watch {server}",
        f"  {program['node']} status {node}",
        "See what was spent, how good the model is after each round, and take it (server/README.md):",
        f"  {program['node']} ledger {node}",
        f"  {program['server']} show {run} {server}",
        f"  {program['server']} export {run} {folder}/adapter {server}",
        "Stop everything and remove the folder:",
        "  make federation-down",
    ]


def removing(folder: Path, nodes: int) -> str:
    """Return what is about to be stopped and removed."""
    return (
        f"Stopping the server and its {nodes} nodes, then removing {folder} with all that is in it: keys, ledgers, "
        "the study's run and what was exported there."
    )


def _state(shown: Mapping[str, Any], yours: str) -> str:
    if shown["state"] in ("queued", "waiting") or (shown["state"] == "running" and not shown["round"]):
        return f"It waits for '{yours}': for you."
    return f"It is {shown['state']}, after {shown['round']} of {shown['rounds']} rounds."
