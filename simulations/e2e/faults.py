"""Every fault that a deployment must survive, each with the outcome that is expected of it.

One study with many short rounds goes on all the while; a fault is done to it, and what the server and the nodes say
afterwards is looked at.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil

from server.run_store.database import BUSY_S, SQLITE
from server.settings import Home
from shared.errors import FedVaultError
from simulations.e2e.budgets import budget_is_spent, limit_is_lowered, short_study
from simulations.e2e.certificates import expired_node_certificate, expired_server_certificate, uninvited
from simulations.e2e.crowd import idle_strangers, knocking_strangers, missing_bodies
from simulations.e2e.federation import COMMAND_POLL_S, OFFERED_S, Federation, Impatience, wait_until
from simulations.e2e.rogue import KINDS, NOT_TAKEN
from simulations.e2e.scene import Record, Scene

DISK_IS_FULL_FOR_S = 8.0
EXPECTED = {"nan": "not-finite", "shape": "shape", "norm": "norm", "stale": "stale", "replay": "stale"}


def killed_in_training(scene: Scene) -> str:
    """Kill a vault in training: the round is lost, named so, charged once; the node is back in the next ones."""
    name, federation = scene.honest[0], scene.federation
    for _ in range(5):  # a vault is killed just after its last step now and then; then nothing is lost
        wait_until(lambda: federation.in_training(name), f"{name} trains", poll_s=0.005)
        federation.signal(name, "vault")
        with contextlib.suppress(Impatience):
            record = scene.after(scene.refused(name, "lost"), f"{name} says lost", timeout_s=90.0)
            scene.after(scene.accepted(name), f"{name} is back")
            return f"round {record['round']} was lost at {name}"
    raise Impatience(f"{name} never lost a round")


def killed_run(scene: Scene) -> str:
    """Kill the ServerApp: the run continues by itself, no round is done twice."""
    scene.federation.signal("server", "run-")
    record = scene.all_accepted()
    numbers = [record["round"] for record in scene.records()]
    if numbers != list(range(1, len(numbers) + 1)):
        raise Impatience(f"rounds {numbers}")
    return f"goes on with round {record['round']}"


def killed_superlink(scene: Scene) -> str:
    """Kill the SuperLink: nodes reconnect, the run continues."""
    scene.federation.signal("server", "superlink")
    return f"goes on with round {scene.all_accepted()['round']}"


def killed_gateway_and_link(scene: Scene) -> str:
    """Kill the gateway and a link: both are back, and so is the node."""
    scene.federation.signal("server", "gateway")
    scene.federation.signal(scene.honest[1], "link")
    return f"goes on with round {scene.all_accepted()['round']}"


def killed_everything(scene: Scene) -> str:
    """Kill ServerApp, SuperLink, gateway, every vault and every link at once: the run continues."""
    for process in ("run-", "superlink", "gateway"):
        scene.federation.signal("server", process)
    for name in scene.honest:
        for process in ("vault", "link"):
            scene.federation.signal(name, process)
    return f"goes on with round {scene.all_accepted()['round']}"


def killed_supervisors(scene: Scene) -> str:
    """Kill the server's supervisor and a node's: their processes leave, and `start` is all that it takes."""
    federation, name = scene.federation, scene.honest[0]
    for owner in ("server", name):
        os.kill(federation.supervisor(owner), signal.SIGKILL)
    federation.server("start", "--detach")
    federation.node(name, "start", "--detach")
    return f"goes on with round {scene.all_accepted()['round']}"


def full_disk(scene: Scene) -> str:
    """Let the supervisor and a new gateway write nothing: it lives, and all is well once they may write again."""
    federation = scene.federation
    supervisor = psutil.Process(federation.supervisor("server"))
    before, gateway = supervisor.rlimit(psutil.RLIMIT_FSIZE), federation.pid("server", "gateway")
    supervisor.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    try:
        os.kill(gateway, signal.SIGKILL)
        wait_until(lambda: _children(supervisor, "gateway") - {gateway}, "the gateway is started without a disk")
        time.sleep(DISK_IS_FULL_FOR_S)
    finally:
        for process in [supervisor, *supervisor.children()]:
            process.rlimit(psutil.RLIMIT_FSIZE, before)
    return f"goes on with round {scene.all_accepted()['round']}{_same_supervisor(scene, supervisor)}"


def database_away(scene: Scene) -> str:
    """Hold the run store for longer than anybody waits for it: what runs goes on, or begins again, once it is free."""
    federation = scene.federation
    supervisor = psutil.Process(federation.supervisor("server"))
    path = Home(federation.home).database().removeprefix(SQLITE)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        time.sleep(2.5 * BUSY_S)
    return f"goes on with round {scene.all_accepted()['round']}{_same_supervisor(scene, supervisor)}"


def study_without_quorum(scene: Scene) -> str:
    """Queue a study that nobody approves before the one underway: it says what it waits for, and steps aside."""
    federation = scene.federation
    federation.server("stop", scene.run, "--yes")
    wait_until(lambda: federation.run(scene.run)["state"] == "stopped", "the study underway stops")
    path = federation.folder / "nobodys.toml"
    path.write_text(short_study(scene.study(), "nobodys"))
    nobodys = federation.start_study(path)
    try:
        wait_until(lambda: federation.run(nobodys)["state"] == "waiting", "it waits for approvals", timeout_s=OFFERED_S)
        reason = federation.run(nobodys)["reason"]
        federation.server("resume", scene.run)
        record = scene.all_accepted()
    finally:
        federation.server("resume", scene.run, check=False)
        federation.server("stop", nobodys, "--yes", check=False)
    if not reason.startswith("waiting for approvals: 0 of"):
        raise Impatience(f"it says {reason!r}")
    return f"{reason}; the other one goes on with round {record['round']}"


def second_server(scene: Scene) -> str:
    """Start another server on each port of this one: it is refused by the key's name, and is never called ready."""
    folder, ports = scene.federation.folder / "another", Home(scene.federation.home).settings()
    for key, taken in (("port", ports.port), ("superlink_port", ports.superlink_port)):
        another = Federation(folder / key)
        another.folder.mkdir(parents=True)
        another.make_server(port=taken if key == "port" else 0, superlink_port=taken if key != "port" else 0)
        output = another.server("start", "--detach", check=False)
        status = json.loads(another.server("status", "--json", check=False))
        if f"Expected a free port, got {key}={taken}" not in output or status["ready"] or status["taken"] != [key]:
            raise Impatience(f"{key}: {output} {status}")
    return f"refused by port and superlink_port; round {scene.all_accepted()['round']} goes on"


def frozen_past_the_deadline(scene: Scene) -> str:
    """Stop a vault past the deadline: late in that round, back afterwards."""
    name = scene.honest[0]
    return _late_and_back(scene, name, [scene.federation.signal(name, "vault", signal.SIGSTOP)])


def frozen_node(scene: Scene) -> str:
    """Stop all processes of a node past the deadline, as when its machine sleeps: late, back afterwards."""
    name, federation = scene.honest[0], scene.federation
    stopped = [federation.supervisor(name)]
    os.kill(stopped[0], signal.SIGSTOP)
    stopped += [federation.signal(name, process, signal.SIGSTOP) for process in ("vault", "link")]
    return _late_and_back(scene, name, stopped)


def everybody_frozen(scene: Scene) -> str:
    """Stop every vault past the deadline, and the run in between: the same round is asked again and aggregated."""
    federation, run = scene.federation, scene.run
    stopped = [federation.signal(name, "vault", signal.SIGSTOP) for name in scene.honest]
    try:
        wait_until(lambda: federation.in_flight(run).get("ask", 0) > 1, "the round is asked again")
        number = federation.in_flight(run)["round"]
        federation.server("stop", run, "--yes")
        wait_until(lambda: federation.run(run)["state"] == "stopped", "the run stops in the middle")
        federation.server("resume", run)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: len(scene.records()) >= number, f"round {number} is over")
    record = scene.records()[number - 1]
    everybody = {scene.node_id(name) for name in scene.honest}
    if record["outcome"] != "aggregated" or record["asks"] < 2 or not everybody <= set(record["accepted"]):
        raise Impatience(f"round {record}")
    return f"round {number} was asked {record['asks']} times, and stopped in between"


def _late_and_back(scene: Scene, name: str, stopped: list[int]) -> str:
    number = scene.node_id(name)
    try:
        late = scene.after(lambda record: number in record["missing"], f"{name} is late")
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    scene.after(scene.accepted(name), f"{name} is back")
    return f"late in round {late['round']}"


def misbehaving(scene: Scene, kind: str) -> str:
    """Let a node send something wrong: it is rejected with its reason, and the round continues."""
    number = scene.node_id(scene.rogue)
    with _rogue(scene, kind):
        if kind == "replay":
            # what it then sends again was good once; and a late answer of another kind is not taken for it
            scene.after(scene.accepted(scene.rogue), f"{scene.rogue} sends something good first")
        record = scene.after(
            lambda record: (
                _late(record, number)
                if kind in NOT_TAKEN
                else {"node": number, "reason": EXPECTED[kind]} in record["rejected"]
            ),
            f"{scene.rogue} is rejected for {EXPECTED.get(kind, 'nothing, for its bytes were not taken')}",
        )
    if number in record["accepted"] or record["outcome"] != "aggregated":
        raise Impatience(f"round {record}")
    reason = [entry["reason"] for entry in record["rejected"]] or ["its bytes were not taken"]
    return f"rejected in round {record['round']}: {reason[0]}"


def revoked(scene: Scene) -> str:
    """Revoke a node: it is refused at once, the others continue."""
    federation, name = scene.federation, scene.honest[-1]
    number = scene.node_id(name)
    federation.server("revoke", name, "--yes")
    record = scene.after(lambda record: number not in record["asked"], f"{name} is not asked any more")
    wait_until(lambda: "does not accept" in federation.node(name, "status"), f"{name} hears it", poll_s=COMMAND_POLL_S)
    return f"not asked since round {record['round']}"


def nobody_is_charged_twice(scene: Scene) -> str:
    """Check that every ledger is intact, and that no round stands in it twice."""
    for name in scene.honest:
        rows_path = scene.federation.folder / f"{name}.rows.jsonl"
        scene.federation.node(name, "ledger", "--export", str(rows_path))
        rows = [json.loads(line) for line in rows_path.read_text().splitlines()]
        reserved = [(row["run"], row["round"]) for row in rows if row["kind"] == "reserve"]
        if len(reserved) != len(set(reserved)):
            raise Impatience(f"{name}: {reserved}")
    return "every ledger whole"


FAULTS: dict[str, Callable[[Scene], str]] = {
    "kill -9 of a node in training": killed_in_training,
    "kill -9 of the ServerApp": killed_run,
    "kill -9 of the SuperLink": killed_superlink,
    "kill -9 of gateway and a link": killed_gateway_and_link,
    "kill -9 of everything at once": killed_everything,
    "kill -9 of both sides' supervisors": killed_supervisors,
    "watchdog: a full disk and a dead gateway": full_disk,
    "watchdog: the database is away": database_away,
    "queue: a study without a quorum": study_without_quorum,
    "health: a second server on used ports": second_server,
    "a vault frozen past the deadline": frozen_past_the_deadline,
    "a whole node frozen past the deadline": frozen_node,
    "every vault frozen, and the run stopped": everybody_frozen,
    **{f"a node that sends: {kind}": lambda scene, kind=kind: misbehaving(scene, kind) for kind in KINDS},  # type: ignore[misc]
    "an uninvited node": uninvited,
    "strangers who hold connections": idle_strangers,
    "strangers who ask all the time": knocking_strangers,
    "a member whose bodies do not come": missing_bodies,
    "the server's expired certificate": expired_server_certificate,
    "a node's expired certificate": expired_node_certificate,
    "a budget that is spent in the middle": budget_is_spent,
    "a limit that is lowered in the middle": limit_is_lowered,
    "a revoked node": revoked,
    "nobody is charged twice": nobody_is_charged_twice,
}


def attempt(name: str, scene: Scene, say: Callable[[str], None]) -> bool:
    """Cause one fault and print how it went, in one line."""
    started = time.monotonic()
    try:
        outcome, good = FAULTS[name](scene), True
    except (Impatience, FedVaultError, OSError, subprocess.TimeoutExpired, KeyError, StopIteration) as error:
        outcome, good = str(error).replace("\n", " | ")[:600], False
    say(f"{'ok    ' if good else 'FAILED'} {name}: {outcome} ({time.monotonic() - started:.0f} s)")
    return good


def _children(supervisor: psutil.Process, name: str) -> set[int]:
    return {child.pid for child in supervisor.children() if name in child.cmdline()}


def _same_supervisor(scene: Scene, before: psutil.Process) -> str:
    if scene.federation.supervisor("server") != before.pid or not before.is_running():
        raise Impatience("the supervisor has ended")
    return ", under the same supervisor"


def _late(record: Record, number: int) -> bool:
    return number in record["asked"] and number in record["missing"]


@contextlib.contextmanager
def _rogue(scene: Scene, kind: str) -> Iterator[None]:
    config = scene.federation.config(scene.rogue)
    study = config.with_name("study.json")
    study.write_text(scene.study().canonical_json())
    command = [sys.executable, "-m", "simulations.e2e.rogue", str(config), kind, str(study)]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()
