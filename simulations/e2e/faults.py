"""Every fault that a deployment must survive, each with the outcome that is expected of it.

One study with many short rounds goes on all the while; a fault is done to it, and what the server and the nodes say
afterwards is looked at.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from server.authority import issue_server
from simulations.e2e.federation import Federation, Impatience, wait_until
from simulations.e2e.rogue import KINDS

Record = dict[str, Any]
EXPECTED = {"nan": "not-finite", "shape": "shape", "norm": "norm", "stale": "stale", "replay": "stale", "huge": "shape"}


@dataclass(frozen=True)
class Scene:
    """A study underway.

    Args:
        federation: with its server and nodes running.
        run: approved by `honest`.
        honest: three or more nodes.
        rogue: the name of one that is enrolled and not running.
    """

    federation: Federation
    run: str
    honest: list[str]
    rogue: str

    def records(self) -> list[Record]:
        """Finished rounds."""
        found: list[Record] = self.federation.run(self.run)["history"]
        return found

    def node_id(self, name: str) -> int:
        """Flower's number of a node."""
        return int(next(number for number, known in self.federation.run(self.run)["nodes"].items() if known == name))

    def after(self, look: Callable[[Record], bool], what: str, *, timeout_s: float = 150.0) -> Record:
        """The first round finished from now on of which this is true."""
        past = len(self.records())
        found: list[Record] = []

        def seen() -> bool:
            found[:] = [record for record in self.records()[past:] if look(record)]
            return bool(found)

        wait_until(seen, what, timeout_s=timeout_s)
        return found[0]

    def accepted(self, name: str) -> Callable[[Record], bool]:
        """Whether a round accepted a node."""
        number = self.node_id(name)
        return lambda record: number in record["accepted"]

    def refused(self, name: str, status: str) -> Callable[[Record], bool]:
        """Whether a node refused a round for this reason."""
        number = self.node_id(name)
        return lambda record: {"node": number, "status": status} in record["refused"]

    def all_accepted(self) -> Record:
        """A round that all honest nodes took part in."""
        numbers = {self.node_id(name) for name in self.honest}
        return self.after(lambda record: numbers <= set(record["accepted"]), "a round with everyone")


def killed_in_training(scene: Scene) -> str:
    """kill -9 of a vault in training: the round is lost, named so, charged once; the node is back in the next ones."""
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
    """kill -9 of the ServerApp: the run goes on by itself, no round is done twice."""
    scene.federation.signal("server", "run-")
    record = scene.all_accepted()
    numbers = [found["round"] for found in scene.records()]
    if numbers != list(range(1, len(numbers) + 1)):
        raise Impatience(f"rounds {numbers}")
    return f"goes on with round {record['round']}"


def killed_superlink(scene: Scene) -> str:
    """kill -9 of the SuperLink: nodes reconnect, the run goes on."""
    scene.federation.signal("server", "superlink")
    return f"goes on with round {scene.all_accepted()['round']}"


def killed_gateway_and_link(scene: Scene) -> str:
    """kill -9 of the gateway and of a link."""
    scene.federation.signal("server", "gateway")
    scene.federation.signal(scene.honest[1], "link")
    return f"goes on with round {scene.all_accepted()['round']}"


def killed_everything(scene: Scene) -> str:
    """kill -9 of ServerApp, SuperLink, gateway, every vault and every link at once."""
    for process in ("run-", "superlink", "gateway"):
        scene.federation.signal("server", process)
    for name in scene.honest:
        for process in ("vault", "link"):
            scene.federation.signal(name, process)
    return f"goes on with round {scene.all_accepted()['round']}"


def frozen_past_the_deadline(scene: Scene) -> str:
    """SIGSTOP of a node past the deadline: late in that round, back afterwards."""
    name = scene.honest[0]
    vault = scene.federation.signal(name, "vault", signal.SIGSTOP)
    number = scene.node_id(name)
    try:
        late = scene.after(lambda record: number in record["missing"], f"{name} is late")
    finally:
        os.kill(vault, signal.SIGCONT)
    scene.after(scene.accepted(name), f"{name} is back")
    return f"late in round {late['round']}"


def misbehaving(scene: Scene, kind: str) -> str:
    """A node that sends something wrong: kept out with its reason, the round goes on."""
    number = scene.node_id(scene.rogue)
    with _rogue(scene, kind):
        record = scene.after(
            # 300 MB do not pass the gateway, so that node has not answered at all
            lambda record: (
                {"node": number, "reason": EXPECTED[kind]} in record["quarantined"]
                or (kind == "huge" and _late(record, number))
            ),
            f"{scene.rogue} is kept out for {EXPECTED[kind]}",
        )
    if number in record["accepted"] or record["outcome"] != "aggregated":
        raise Impatience(f"round {record}")
    reason = [entry["reason"] for entry in record["quarantined"]] or ["its bytes were not taken"]
    return f"kept out of round {record['round']}: {reason[0]}"


def uninvited(scene: Scene) -> str:
    """A node without an invite, and one with a used one: refused."""
    federation = scene.federation
    used = federation.folder / f"{scene.honest[0]}.invite.json"
    forged = federation.folder / "forged.invite.json"
    forged.write_text(json.dumps(json.loads(used.read_text()) | {"token": "guess", "name": "stranger"}))
    config = federation.folder / "stranger" / "node.toml"
    config.parent.mkdir()
    config.write_text("")
    for invite in (used, forged):
        said = federation.node("stranger", "join", str(invite), check=False)
        if "403" not in said:
            raise Impatience(said)
    return "no invite, no entry"


def expired_certificate(scene: Scene) -> str:
    """An expired server certificate: doctor says so; after renewal all nodes are back."""
    federation, name = scene.federation, scene.honest[0]
    keys = federation.home / "keys"
    issue_server(keys, ["127.0.0.1"], now=datetime.now(UTC) - timedelta(days=500))
    federation.signal("server", "gateway")
    wait_until(lambda: "expired" in federation.node(name, "doctor", check=False), "doctor sees the expired certificate")
    federation.server("renew")
    federation.signal("server", "gateway")
    return f"back in round {scene.all_accepted()['round']}"


def budget_runs_out(scene: Scene) -> str:
    """A node whose operator lowers its limit in the middle: it refuses for its budget before training, others go on."""
    federation, name = scene.federation, scene.honest[1]
    config = federation.config(name)
    limit = _spent(scene, name) + 0.02
    config.write_text(config.read_text().replace("epsilon = 3.0", f"epsilon = {limit:.4f}"))
    # a round may have been paid for while the file was written
    underway = _spent(scene, name)
    record = scene.after(scene.refused(name, "refused_budget"), f"{name} refuses for its budget")
    after = _spent(scene, name)
    if after > max(limit, underway) or record["outcome"] != "aggregated":
        raise Impatience(f"spent {after}, allowed {limit}: {record}")
    return f"refuses from round {record['round']}, spent {after:.3f}"


def revoked(scene: Scene) -> str:
    """A revoked node: refused at once, the others go on."""
    federation, name = scene.federation, scene.honest[-1]
    number = scene.node_id(name)
    federation.server("revoke", name)
    record = scene.after(lambda record: number not in record["asked"], f"{name} is not asked any more")
    wait_until(lambda: "does not accept" in federation.node(name, "status"), f"{name} hears it")
    return f"not asked since round {record['round']}"


def nobody_is_charged_twice(scene: Scene) -> str:
    """Every ledger is whole, and no round stands in it twice."""
    for name in scene.honest:
        rows_path = scene.federation.folder / f"{name}.rows.jsonl"
        scene.federation.node(name, "ledger", "--export", str(rows_path))
        rows = [json.loads(line) for line in rows_path.read_text().splitlines()]
        reserved = [row["round"] for row in rows if row["kind"] == "reserve"]
        if len(reserved) != len(set(reserved)):
            raise Impatience(f"{name}: {reserved}")
    return "every ledger whole"


FAULTS: dict[str, Callable[[Scene], str]] = {
    "kill -9 of a node in training": killed_in_training,
    "kill -9 of the ServerApp": killed_run,
    "kill -9 of the SuperLink": killed_superlink,
    "kill -9 of gateway and a link": killed_gateway_and_link,
    "kill -9 of everything at once": killed_everything,
    "a node frozen past the deadline": frozen_past_the_deadline,
    **{f"a node that sends: {kind}": lambda scene, kind=kind: misbehaving(scene, kind) for kind in KINDS},  # type: ignore[misc]
    "an uninvited node": uninvited,
    "an expired certificate": expired_certificate,
    "a budget that runs out in the middle": budget_runs_out,
    "a revoked node": revoked,
    "nobody is charged twice": nobody_is_charged_twice,
}


def attempt(name: str, scene: Scene, say: Callable[[str], None]) -> bool:
    """Do one fault and say how it went, in one line."""
    started = time.monotonic()
    try:
        outcome, good = FAULTS[name](scene), True
    except (Impatience, OSError, subprocess.TimeoutExpired, KeyError, StopIteration) as error:
        outcome, good = str(error).replace("\n", " | ")[:600], False
    say(f"{'ok    ' if good else 'FAILED'} {name}: {outcome} ({time.monotonic() - started:.0f} s)")
    return good


def _spent(scene: Scene, name: str) -> float:
    return float(json.loads(scene.federation.node(name, "ledger", "--json"))["datasets"]["ward"]["spent"])


def _late(record: Record, number: int) -> bool:
    return number in record["asked"] and number in record["missing"]


@contextlib.contextmanager
def _rogue(scene: Scene, kind: str) -> Iterator[None]:
    command = [sys.executable, "-m", "simulations.e2e.rogue", str(scene.federation.config(scene.rogue)), kind]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()
