"""The two questions after a round: what a node signs and opens, and what it refuses by a public code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.protocol.messages import Status
from shared.secure_sum.context import RoundContext
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.messages import Held, OpeningQuestion, OpeningReply, SurvivorsQuestion
from shared.secure_sum.session import Session
from shared.secure_sum.survivors import Survivors
from tests.support.ledgers import rows_of
from tests.support.sum_nodes import LENGTH, NAMES, RUN, Federation, SumNode, fingerprint


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


@pytest.fixture
def session(federation: Federation) -> Session:
    """Fixed, with all nodes in it."""
    session = federation.server.session()
    federation.server.ask(session)
    session.fix()
    return session


@pytest.fixture
def node(federation: Federation) -> SumNode:
    return federation.nodes["north"]


def question(session: Session, survivors: Survivors, context: bytes | None = None) -> bytes:
    return SurvivorsQuestion(context or session.context.digest, survivors).to_bytes()


def survivors_of(session: Session) -> dict[str, bytes]:
    assert session.survivors is not None
    return dict(session.survivors.digests)


def sign(federation: Federation, session: Session) -> None:
    for name in session.unsigned:
        reply = federation.nodes[name].leg("survivors", session.survivors_question())
        session.add_signature(name, reply.content)


def refused(node: SumNode, content: bytes, number: int = 1) -> bool:
    before = node.row_kinds()
    reply = node.leg("survivors", content, number)
    assert reply.content == b"" and node.row_kinds() == before
    return reply.status is Status.REFUSED_SURVIVORS


def test_survivors_without_this_node_or_with_another_message_or_a_stranger_are_refused(
    session: Session, node: SumNode
) -> None:
    digests = survivors_of(session)
    without_me = {name: digest for name, digest in digests.items() if name != "north"}
    assert refused(node, question(session, Survivors.of(without_me)))
    assert refused(node, question(session, Survivors.of(digests | {"north": bytes(32)})))
    assert refused(node, question(session, Survivors.of(digests | {"stranger": bytes(32)})))
    assert refused(node, question(session, Survivors.of({name: digests[name] for name in ("north", "south")})))
    assert refused(node, b"") and refused(node, b"FVSS" * 50)


@pytest.mark.parametrize("field", ["run", "study_sha256", "round", "adapter_sha256", "roster_sha256", "purpose"])
def test_a_question_of_another_context_is_refused(session: Session, node: SumNode, field: str) -> None:
    other = {"round": 2, "purpose": "evaluation"}.get(field, "x" * 64)
    context: RoundContext = replace(session.context, **{field: other})
    assert refused(node, question(session, Survivors.of(survivors_of(session)), context.digest))


@pytest.mark.guarantee("a set of survivors is a row of the ledger before this node's signature on it leaves.")
def test_a_second_set_of_survivors_is_refused_for_ever(session: Session, node: SumNode) -> None:
    digests = survivors_of(session)
    fewer = Survivors.of({name: digests[name] for name in ("north", "south", "west")})
    assert node.leg("survivors", question(session, fewer)).status is Status.TRAINED
    with node.ledger() as ledger:
        row = rows_of(ledger)[-1]
    said = {"kind": "survivors", "run": RUN, "round": 1, "purpose": "training", "sha256": fewer.sha256(session.context)}
    assert said.items() <= row.items()
    assert refused(node, session.survivors_question())
    assert node.leg("survivors", question(session, fewer)).status is Status.TRAINED, "the first one is signed again"


def test_no_sum_of_fewer_nodes_than_the_operator_asks_for_is_signed_or_opened(
    federation: Federation, session: Session, node: SumNode
) -> None:
    """The threshold is three of four; this node's rule is about those whose sum is opened, not about the roster."""
    digests, usual = survivors_of(session), node.rule
    three = question(session, Survivors.of({name: digests[name] for name in ("north", "south", "west")}))
    node.rule = replace(usual, smallest_cohort=4)
    assert refused(node, three), "and no row says that it was signed"
    sign(federation, session)
    assert not session.unsigned, "all four are enough"
    opening = session.opening_question("north")
    assert node.leg("opening", opening).status is Status.TRAINED


@pytest.mark.guarantee(
    "nothing is signed or opened with peers whom the operator's pins and policy of today do not allow."
)
def test_what_the_operator_says_after_a_vector_left_holds_for_the_questions_about_it(
    federation: Federation, session: Session, node: SumNode
) -> None:
    usual, asked = node.rule, session.survivors_question()
    unpinned = replace(usual, pins={key: owner for key, owner in usual.pins.items() if key != fingerprint("west")})
    stricter = [unpinned, replace(usual, colluders=2), replace(usual, smallest_cohort=5)]
    for rule in stricter:
        node.rule, before = rule, node.row_kinds()
        reply = node.leg("survivors", asked)
        assert reply.status is Status.REFUSED_ROSTER and not reply.content and node.row_kinds() == before
    node.rule = usual
    sign(federation, session)
    for rule in stricter:
        node.rule = rule
        assert node.leg("opening", session.opening_question("north")).status is Status.REFUSED_ROSTER
    node.rule = usual
    assert node.leg("opening", session.opening_question("north")).status is Status.TRAINED


def test_nothing_is_opened_before_it_is_signed_and_signed_by_enough(
    federation: Federation, session: Session, node: SumNode
) -> None:
    survivors, held = Survivors.of(survivors_of(session)), (Held(bytes(32), bytes(32), bytes(82)),) * len(NAMES)
    bare = OpeningQuestion(session.context.digest, survivors, {}, held).to_bytes()
    assert node.leg("opening", bare).status is Status.REFUSED_SURVIVORS
    sign(federation, session)
    asked = OpeningQuestion.from_bytes(session.opening_question("north"))
    signatures = dict(asked.signatures)
    few = replace(asked, signatures={name: signatures[name] for name in ("north", "south")})
    forged = replace(
        asked, signatures=signatures | {"west": RunKeys.generate().sign(survivors.statement(session.context))}
    )
    digests = survivors_of(session)
    other_set = replace(asked, survivors=Survivors.of({n: digests[n] for n in NAMES[:3]}), held=asked.held[:3])
    for content in (few, forged, other_set):
        reply = node.leg("opening", content.to_bytes())
        assert reply.status is Status.REFUSED_SURVIVORS and reply.content == b""
    assert node.leg("opening", asked.to_bytes()).status is Status.TRAINED


def test_boxes_that_were_swapped_are_reported_for_their_dealers_alone(
    federation: Federation, session: Session, node: SumNode
) -> None:
    sign(federation, session)
    asked = OpeningQuestion.from_bytes(session.opening_question("north"))
    east, north, south, west = asked.held
    swapped = replace(asked, held=(south, north, east, west))
    reply = OpeningReply.from_bytes(node.leg("opening", swapped.to_bytes()).content)
    assert [share is not None for share in reply.shares] == [False, True, False, True]


def test_an_answer_holds_a_share_or_a_seed_of_each_node_and_never_both(federation: Federation) -> None:
    session, left = federation.server.session(), NAMES[:3]
    federation.server.ask(session, names=left)
    session.fix()
    sign(federation, session)
    node = federation.nodes["north"]
    reply = OpeningReply.from_bytes(node.leg("opening", session.opening_question("north")).content)
    assert len(reply.shares) == len(left) and len(reply.seeds) == 1
    late = federation.nodes["west"].train(federation.server.task())
    assert late.status is Status.TRAINED, "who comes late has paid, and is closed by its own mask"
    again = OpeningReply.from_bytes(node.leg("opening", session.opening_question("north")).content)
    assert again == reply


def test_a_round_with_an_adapter_for_one_node_alone_opens_nothing(federation: Federation) -> None:
    server, vanishing = federation.server, np.zeros(LENGTH, np.float32)
    session = server.session()
    server.ask(session, names=("east", "south", "west"))
    odd = federation.nodes["north"].train(server.task(adapter=vanishing))
    with pytest.raises(Exception, match="Expected a message of this"):
        session.add_masked("north", odd.masked)
    session.fix()
    digests = survivors_of(session)
    assert refused(federation.nodes["north"], question(session, Survivors.of(digests | {"north": bytes(32)})))


def test_questions_of_a_run_that_is_over_unknown_or_of_another_study_get_a_code(
    federation: Federation, session: Session, node: SumNode
) -> None:
    asked = session.survivors_question()
    assert node.leg("survivors", asked, run="r-9").status is Status.REFUSED_STUDY
    assert node.leg("survivors", asked, study="x" * 64).status is Status.REFUSED_STUDY
    with node.ledger() as ledger:
        ledger.close_run(RUN)
    assert node.leg("survivors", asked).status is Status.REJECTED
    fresh = Federation(federation.nodes["east"].folder / "another").nodes["east"]
    assert fresh.leg("survivors", asked).status is Status.REFUSED_ROSTER
