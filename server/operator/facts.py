"""Gather what a server's status says: what runs and answers, who is present, and when certificates end."""

from datetime import UTC, datetime
from typing import Any

from server.certificate_ends import certificate_ends, due_lines, operator_lines, without_newest_authority
from server.flower.control import Control, FlowerNode
from server.health import Answer, answers
from server.processes import flower_bytes
from server.run_store.store import Store
from server.settings import Home
from shared.errors import RunError
from shared.processes.running import is_starting, read_state
from shared.terminal import saying

PORT_KEYS = {"superlink": "superlink_port", "gateway": "port"}


def status_facts(home: Home) -> dict[str, Any]:
    """Return what runs and answers, the run that is wanted, and when certificates end."""
    settings, state, answering = home.settings(), read_state(home.running), answers(home)
    now = datetime.now(UTC)
    with Store(home.database()) as store:
        wanted, names, operators = store.next_wanted(), store.enrolled_names(), store.operators.ends(now)
    server, *others = certificate_ends(home.keys, names)
    processes = state["processes"] if state else {}
    ours = {name: answer is Answer.OURS for name, answer in answering.items()}
    return {
        "running": state is not None,
        "state": "stopped" if state is None else state_of(processes, ours),
        "processes": processes,
        "silent": [name for name, answers_us in ours.items() if not answers_us],
        "taken": [PORT_KEYS[name] for name, answer in answering.items() if answer is Answer.ANOTHER],
        "ready": all(ours.values()),
        "address": f"{settings.hosts[0]}:{settings.port}",
        "run": wanted.id if wanted else None,
        "flower_database_bytes": flower_bytes(home),
        "certificate_ends": server.ends.isoformat(),
        "renew_due": server.due(now),
        "certificate_ended": now >= server.ends,
        "certificates": [server.in_words(now), *due_lines(others, now), *operator_lines(operators, now)],
        "without_new_authority": without_newest_authority(home.keys, names),
    }


def state_of(processes: dict[str, Any], ours: dict[str, bool]) -> str:
    """Return `runs` if everything does and answers, `starting` if what does not is young, else `troubled`."""
    now = datetime.now(UTC)
    waiting = {name: processes.get(name) for name in ours if not (ours[name] and name in processes)}
    waiting |= {name: process for name, process in processes.items() if process["pid"] is None}
    if not waiting:
        return "runs"
    return "starting" if all(is_starting(process, now) for process in waiting.values()) else "troubled"


def flower_nodes(home: Home) -> list[FlowerNode] | None:
    """Return the nodes as Flower sees them; None while it does not answer."""
    control = Control(home)
    try:
        return control.nodes()
    except RunError:
        return None
    finally:
        control.close()


def present_nodes(home: Home) -> set[int] | None:
    """Return Flower's numbers of the nodes that are present; None while Flower does not answer."""
    with saying("Asking Flower who is present"):
        nodes = flower_nodes(home)
    return None if nodes is None else {node.node_id for node in nodes if node.present}
