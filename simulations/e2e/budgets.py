"""Budgets that run out: by being spent, and by an operator who allows less.

A node approves a run only if its whole worst case fits beside all that was spent and earmarked, so no run outlives its
own budget. What runs out is what is left for the next one; and a limit may be lowered under a run that is underway.
"""

import json
from typing import NamedTuple

from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import plan, schedule_of
from shared.privacy.releases import SubsampledGaussian
from shared.study.declaration import Study
from shared.study.tasks import SequenceClassification
from simulations.e2e.federation import Impatience, wait_until
from simulations.e2e.scene import Record, Scene

ROOM_ROUNDS = 6.5
SHORT_ROUNDS, SHORT_STEPS = 2, 4


def limit_for_one(main: Study, delta: float) -> float:
    """Return a limit with room for the study underway and one short study beside it, but no second one."""
    long, short = _release(main), _short_release(main)
    return (epsilon_rdp([long, short], delta) + epsilon_rdp([long, short, short], delta)) / 2


def budget_is_spent(scene: Scene) -> str:
    """Run two short studies in the middle of a long one: the first spends a node's rest, so it refuses the second.

    The others train the second one; for the long one everything is earmarked, and it goes on with all of them.
    """
    federation, name = scene.federation, scene.tight
    federation.server("stop", scene.run, "--yes")
    try:
        first = _short_study(scene, scene.honest)
        after = state(scene, name).spent
        if any(scene.node_id(name) not in record["accepted"] for record in first):
            raise Impatience(f"{name} was not in the first short study: {first}")
        refused = _short_study(scene, [node for node in scene.honest if node != name])
        if state(scene, name).spent != after or any(scene.node_id(name) in record["asked"] for record in refused):
            raise Impatience(f"{name} was in the second short study: {refused}")
    finally:
        federation.server("resume", scene.run)
    record = scene.all_accepted()
    return f"spent {after:.3f}, refuses the next study for its budget; its earmark holds in round {record['round']}"


def limit_is_lowered(scene: Scene) -> str:
    """Lower a node's limit: rounds fill it, then the node refuses and the others continue; raise it, and it is back."""
    federation, name = scene.federation, scene.tight
    config = federation.config(name)
    settings = config.read_text()
    (declared,) = [line for line in settings.splitlines() if line.startswith("epsilon = ")]
    before = state(scene, name)
    scene.after(scene.accepted(name), f"{name} trains a round")
    now = state(scene, name)
    # at orders that are fixed, each round costs the same
    per_round = (now.counted - before.counted) / (now.rounds - before.rounds)
    limit = now.counted + ROOM_ROUNDS * per_round
    try:
        config.write_text(settings.replace(declared, f"epsilon = {limit:.6f}"))
        record = scene.after(scene.refused(name, "refused_budget"), f"{name} refuses for its budget")
        after = state(scene, name)
        more = after.rounds - now.rounds
        if not (more and limit - 2 * per_round < after.counted <= limit) or record["outcome"] != "aggregated":
            raise Impatience(f"spent {after.counted}, allowed {limit}, {more} more rounds: {record}")
    finally:
        config.write_text(settings)
    back = scene.after(scene.accepted(name), f"{name} is back")
    return (
        f"{more} more rounds, refuses in round {record['round']} at {after.counted:.3f}, back in round {back['round']}"
    )


class LedgerState(NamedTuple):
    """A node's ledger at one moment."""

    rounds: int
    """Paid for, of the study underway."""
    spent: float
    counted: float
    """What is spent at the orders that its account is judged at: what a limit is compared with."""


def state(scene: Scene, name: str) -> LedgerState:
    """Read a node's ledger: its rounds, and what is spent, as it is told and as it is judged."""
    path = scene.federation.folder / f"{name}.rows.jsonl"
    report = json.loads(scene.federation.node(name, "ledger", "--json", "--export", str(path)))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rounds = sum(row["kind"] == "reserve" and row["run"] == scene.run for row in rows)
    account = report["datasets"]["ward"]
    return LedgerState(rounds, float(account["spent"]), float(account["spent_at_these_orders"]))


def _short_study(scene: Scene, members: list[str]) -> list[Record]:
    """Run the short study at these nodes; all others must refuse it for their budget. Return its rounds."""
    federation = scene.federation
    path = federation.folder / "short.toml"
    path.write_text(short_study(scene.study(), "short"))
    run = federation.start_study(path)
    refusing = [scene.node_id(name) for name in scene.honest if name not in members]
    # the one whose budget this is about says yes first: a round may begin before the last one has
    federation.approve(sorted(members, key=lambda name: name != scene.tight), run)
    wait_until(lambda: federation.run(run)["state"] == "finished", "the short study is finished", timeout_s=300.0)
    events = [json.loads(line) for line in federation.server("logs", run, "--json").splitlines()]
    present = [event["body"] for event in events if event["kind"] == "present"][-1]
    if present.get("refused_budget", []) != refusing:
        raise Impatience(f"expected {refusing} to refuse for their budgets, got {present}")
    history: list[Record] = federation.run(run)["history"]
    return history


def short_study(main: Study, name: str) -> str:
    """Return the text of a study as short as can be, of the kind of another one."""
    task = main.task
    if not isinstance(task, SequenceClassification):
        raise Impatience(f"expected a study of texts with labels, got {task.kind}")
    labels = ", ".join(f'"{label}"' for label in task.labels)
    return f"""
[study]
name = "{name}"
[model]
source = "{main.model.source}"
[task]
kind = "{task.kind}"
labels = [{labels}]
max_length = {task.max_length}
[adapter]
layers = "last:1"
[privacy]
epsilon = 1.0
[training]
local_steps = {SHORT_STEPS}
[federation]
rounds = {SHORT_ROUNDS}
quorum = {main.federation.quorum}
deadline_s = 240
smallest_declared_size = 30
"""


def _short_release(main: Study) -> SubsampledGaussian:
    privacy = main.privacy.model_copy(update={"epsilon": 1.0})
    steps = SHORT_ROUNDS * SHORT_STEPS
    return plan(privacy, steps=steps).release(steps)


def _release(study: Study) -> SubsampledGaussian:
    return schedule_of(study).release(study.total_steps)
