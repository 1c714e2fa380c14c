"""A run that is ended or withdrawn is gone: from a warm vault's memory, and from its files."""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.operator.forgetting import forget_ended
from client.operator.withdrawal import withdraw
from client.vault.review.forgetting import forget_left_over
from client.vault.review.node_files import open_node
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from client.vault.service.process import _look
from shared.errors import RunError
from shared.protocol.messages import Status, TrainReply
from tests.support.nodes import Node, offer, task
from tests.support.operators import reject_run

pytestmark = pytest.mark.usefixtures("nothing_logged")


@pytest.fixture
def nothing_logged() -> Iterator[None]:
    """Without pytest's copies of what is logged: an error holds the frames that it came through."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def traces(vault: NodeVault) -> list["weakref.ref[object]"]:
    """Weak references to everything that a loaded run holds of its records, and to its model."""
    assert vault._loaded is not None
    run = vault._loaded.trainer
    trainer = run.trainer()
    records = trainer.activations.records
    held: list[object] = [run, run.model, trainer, trainer.activations, records, *run.model.parameters()]
    held += [array for field in records.fields.values() for array in (field.values, field.offsets)]
    return [weakref.ref(thing) for thing in held]


def left(references: list["weakref.ref[object]"]) -> list[object]:
    gc.collect()
    return [thing for reference in references if (thing := reference()) is not None]


def files(node: Node) -> list[Path]:
    places = open_node(node.config).folders
    return [path for folder in (places.cache, places.approved) for path in folder.rglob("*") if path.is_file()]


@contextmanager
def served(node: Node) -> Iterator[NodeVault]:
    steps = Steps()
    vault = NodeVault(node.config, on_step=steps)
    with serving(VaultService(vault, steps), open_node(node.config).folders.socket):
        yield vault


def trained(node: Node, vault: NodeVault) -> list["weakref.ref[object]"]:
    study = node.study()
    node.approve(study)
    assert vault.train(task(study)).status is Status.TRAINED
    vault.measure(task(study), lambda: None)
    assert any(path.suffix == ".f32" for path in files(node))
    return traces(vault)


def end_by_withdrawing(node: Node) -> None:
    withdraw(open_node(node.config), "ward")


def end_by_rejecting(node: Node) -> None:
    reject_run(node.config, "r-1")
    forget_ended(open_node(node.config))


@pytest.mark.guarantee(
    "of a run that was ended or withdrawn, no record, activation or model stays in memory or in a file."
)
@pytest.mark.parametrize("end", [end_by_withdrawing, end_by_rejecting])
def test_when_the_command_returns_a_warm_vault_holds_nothing_any_more(node: Node, end: Callable[[Node], None]) -> None:
    with served(node) as vault:
        references = trained(node, vault)
        end(node)
        assert left(references) == []
        assert [path for path in files(node) if "verdicts" not in path.parts] == []


@pytest.mark.guarantee(
    "of a run that was ended or withdrawn, no record, activation or model stays in memory or in a file."
)
@pytest.mark.parametrize("question", ["train", "offer"])
def test_a_vault_that_was_not_told_notices_at_the_next_question(node: Node, question: str) -> None:
    vault, study = NodeVault(node.config), node.study()
    references = trained(node, vault)
    with open_node(node.config).open_ledger() as ledger:
        ledger.withdraw("ward")
    if question == "train":
        assert vault.train(task(study, 2)).status is Status.REFUSED_POLICY
    else:
        vault.offer(offer(study))
    assert left(references) == []
    assert [path for path in files(node) if "verdicts" not in path.parts] == []


@pytest.mark.guarantee(
    "of a run that was ended or withdrawn, no record, activation or model stays in memory or in a file."
)
def test_a_vault_that_nobody_asks_looks_by_itself(node: Node) -> None:
    vault = NodeVault(node.config)
    references = trained(node, vault)
    vault.forget_ended(announced=False)
    assert len(left(references)) == len(references), "the run goes on"
    with open_node(node.config).open_ledger() as ledger:
        ledger.close_run("r-1")
    vault.forget_ended(announced=False)
    assert left(references) == [] and [path for path in files(node) if "verdicts" not in path.parts] == []


@pytest.mark.guarantee(
    "of a run that was ended or withdrawn, no record, activation or model stays in memory or in a file."
)
def test_a_round_in_training_ends_at_its_next_step_and_its_update_never_leaves(node: Node) -> None:
    study, training, go_on = node.study(), threading.Event(), threading.Event()
    node.approve(study)
    replies, steps = list[TrainReply](), Steps()

    def step(done: int) -> None:
        training.set()
        assert go_on.wait(60)
        steps(done)

    def interrupt() -> None:
        steps.cancel()
        go_on.set()

    vault = NodeVault(node.config, on_step=step)
    job = threading.Thread(target=lambda: replies.append(vault.train(task(study))))
    job.start()
    assert training.wait(60)
    references = traces(vault)
    with open_node(node.config).open_ledger() as ledger:
        ledger.withdraw("ward")
    vault.forget_ended(interrupt)
    job.join(60)
    assert [reply.status for reply in replies] == [Status.FAILED] and not replies[0].update.any()
    assert vault._loaded is None and [path for path in files(node) if "verdicts" not in path.parts] == []
    assert left(references) == []


def test_a_round_that_ended_as_its_run_was_ended_is_answered_with_failed(node: Node) -> None:
    study = node.study()
    node.approve(study)

    def withdraw_at_the_last_step(done: int) -> None:
        if done == study.training.local_steps:
            with open_node(node.config).open_ledger() as ledger:
                ledger.withdraw("ward")

    reply = NodeVault(node.config, on_step=withdraw_at_the_last_step).train(task(study))
    assert reply.status is Status.FAILED and not reply.update.any()


def test_a_vault_that_does_not_answer_is_said_and_forgets_when_it_can(node: Node) -> None:
    with served(node) as vault:
        references = trained(node, vault)
        reject_run(node.config, "r-1")
        with vault._in_use, pytest.raises(RunError, match="has not said so yet"):
            forget_ended(open_node(node.config), timeout_s=0.5)
        deadline = time.monotonic() + 30
        while left(references) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left(references) == []


def test_a_crash_between_the_row_and_the_files_is_made_up_for_when_a_vault_starts(node: Node) -> None:
    trained(node, NodeVault(node.config))
    files_of, before = open_node(node.config), files(node)
    with files_of.open_ledger() as ledger:
        forget_left_over(files_of, ledger.state)
        assert files(node) == before, "nothing is over"
        ledger.withdraw("ward")
        forget_left_over(files_of, ledger.state)
    assert [path for path in files(node) if "verdicts" not in path.parts] == []


def test_another_runs_round_goes_on_while_one_is_ended(node: Node) -> None:
    study = node.study(privacy={"epsilon": 1.0})
    node.approve(study)
    node.approve(study, "r-2")
    vault = NodeVault(node.config)
    assert vault.train(task(study)).status is Status.TRAINED
    references, interrupted = traces(vault), list[bool]()
    reject_run(node.config, "r-2")
    vault.forget_ended(lambda: interrupted.append(True))
    assert not interrupted and len(left(references)) == len(references)
    assert vault.train(task(study, 2)).status is Status.TRAINED, "from a file that is gone by name"


def test_files_that_go_while_a_vault_looks_do_not_end_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    vault = NodeVault(node.config, on_step=steps)

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("deleted by an operator's command meanwhile")

    monkeypatch.setattr(vault, "forget_ended", gone)
    _look(vault, VaultService(vault, steps))
