"""Power cuts and full disks at every durable step of a secure round at a node: one mask, one set, the same bytes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from client.vault.ledger.outbox import Outbox
from shared.errors import LedgerError
from shared.protocol.messages import LegReply, Status, TrainReply
from shared.secure_sum.session import Session
from tests.support.power import KINDS, Cut, Kind, Power
from tests.support.sum_nodes import LENGTH, NAMES, RUN, Federation, SumNode

OTHERS = tuple(name for name in NAMES if name != "north")
Supply = Callable[[Power], None]


class Template(NamedTuple):
    """Nodes of whom all but one have sent their part, to be copied."""

    federation: Federation
    parts: dict[str, bytes]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    federation = Federation(tmp_path_factory.mktemp("federation"))
    task = federation.server.task()
    return Template(federation, {name: federation.nodes[name].train(task).masked for name in OTHERS})


def fresh(memory: Path, node: SumNode) -> SumNode:
    """The same node on a disk of its own."""
    shutil.rmtree(memory / node.name, ignore_errors=True)
    shutil.copytree(node.folder, memory / node.name)
    return SumNode(memory, node.name, node.study, node.trainer.values)


def trained(node: SumNode, template: Template) -> TrainReply | None:
    with suppress(Cut):
        return node.train(template.federation.server.task())
    return None


def asked(node: SumNode, content: bytes) -> LegReply | None:
    with suppress(Cut, LedgerError, OSError):
        return node.leg("survivors", content)
    return None


def steps(supply: Supply, work: Callable[[], object]) -> int:
    """Count the durable steps of some work."""
    counted = Power()
    supply(counted)
    work()
    supply(Power())
    return counted.count


@pytest.fixture
def supply(power: Supply) -> Iterator[Supply]:
    yield power
    power(Power())


@pytest.mark.guarantee("this node's share of its own mask is on disk before the masked vector is released.")
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_step_of_a_round_leaves_one_mask_or_a_lost_round(
    supply: Supply, memory: Path, template: Template, kind: Kind
) -> None:
    original, sums = template.federation.nodes["north"], 0
    count = steps(supply, lambda: trained(fresh(memory, original), template))
    assert count > 40, "a roster, a share and three rows are written"
    for step in range(1 + KINDS.index(kind), count + 1, 3):
        node = fresh(memory, original)
        supply(Power(step, kind))
        first = trained(node, template)
        supply(Power())
        again = SumNode(memory, "north", node.study, [7] * LENGTH)  # whatever would be trained now
        second = trained(again, template)
        assert second is not None and second.status in (Status.TRAINED, Status.FAILED, Status.LOST)
        if first is not None and first.status is Status.TRAINED:
            assert second.masked == first.masked, "other bytes were sent"
        if second.status is not Status.TRAINED:
            assert node.leg("survivors", b"").status is not Status.TRAINED
            continue
        assert len(node.trainer.charged) + len(again.trainer.charged) == 1, "trained twice"
        if step % 2:
            session = fixed(template, second.masked)
            values = node.trainer.values if node.trainer.charged else again.trainer.values
            assert own_part(session, again, memory, template) == list(values)
            sums += 1
    assert sums


@pytest.mark.parametrize("end", ["close", "withdraw"])
def test_after_a_cut_at_any_step_of_a_round_nothing_leaves_once_its_run_is_over(
    supply: Supply, memory: Path, template: Template, end: str
) -> None:
    """Also not where the masked vector is on the disk, and a power cut took only the row that calls it released."""
    original, unsent = template.federation.nodes["north"], 0
    count = steps(supply, lambda: trained(fresh(memory, original), template))
    for step in range(count - 14, count + 1):
        node = fresh(memory, original)
        supply(Power(step, "survived"))
        trained(node, template)
        supply(Power())
        outbox, released = Outbox(node.folder / "outbox"), "commit" in node.row_kinds()
        kept = outbox.find(RUN, 1) is not None
        with node.ledger() as ledger:
            ledger.enter({"kind": end, **({"run": RUN} if end == "close" else {"dataset": "data"})})
        reply = trained(node, template)
        assert reply is not None and (reply.status is Status.TRAINED) is released
        assert any(reply.masked) is released
        if kept and not released:
            unsent += 1
            assert outbox.find(RUN, 1) is None, "and it is deleted"
    assert unsent, "else this shows nothing"


def fixed(template: Template, masked: bytes) -> Session:
    session = template.federation.server.session()
    for name, message in {**template.parts, "north": masked}.items():
        session.add_masked(name, message)
    session.fix()
    return session


def own_part(session: Session, node: SumNode, memory: Path, template: Template) -> list[int]:
    """Open the sum on copies of the others, and return what this node had added."""
    others = {name: fresh(memory, template.federation.nodes[name]) for name in OTHERS}
    nodes = {**others, "north": node}
    for name in NAMES:
        session.add_signature(name, nodes[name].leg("survivors", session.survivors_question()).content)
    for name in NAMES:
        session.add_opening(name, nodes[name].leg("opening", session.opening_question(name)).content)
    session.open()
    assert session.total is not None
    total = [int(number) for number in session.total]
    return [number - sum(others[name].trainer.values[k] for name in OTHERS) for k, number in enumerate(total)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_step_of_signing_leaves_one_set_of_survivors(
    supply: Supply, memory: Path, template: Template, kind: Kind
) -> None:
    original = fresh(memory, template.federation.nodes["north"])
    reply = trained(original, template)
    assert reply is not None
    before = memory / "before"
    shutil.copytree(original.folder, before / "north")
    session = fixed(template, reply.masked)
    question = session.survivors_question()
    whole = SumNode(before, "north", original.study, original.trainer.values)
    count = steps(supply, lambda: asked(fresh(memory, whole), question))
    for step in range(1, count + 1):
        node = fresh(memory, whole)
        supply(Power(step, kind))
        first = asked(node, question)
        supply(Power())
        second = asked(node, question)
        assert second is not None and second.status is Status.TRAINED and first in (None, second)
        assert node.row_kinds().count("survivors") == 1
