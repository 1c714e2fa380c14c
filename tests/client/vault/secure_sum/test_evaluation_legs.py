"""An evaluation's counts in a secure sum at a node: behind a mask, with rows, keys and survivors of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.vault.service import charged_evaluation
from client.vault.training.randomness import OsRandomness
from shared.private_evaluation.cells import STEPS
from shared.private_evaluation.noise import sigma, summed_noise
from shared.protocol.messages import EvaluationReply, Status
from shared.secure_sum.messages import MaskedVector, SurvivorsQuestion
from shared.secure_sum.session import Session
from shared.secure_sum.survivors import Survivors
from shared.study.secure_sum import sum_sizes
from tests.support.sum_nodes import ADAPTER, NAMES, RUN, Federation, SumNode, exact, sum_study

EVALUATION = "evaluation"


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charged_evaluation, "exact_histogram", exact)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, sum_study("shared", evaluates=True))


def collect(federation: Federation, session: Session, names: tuple[str, ...] = NAMES) -> dict[str, EvaluationReply]:
    question = federation.server.question(session.context.round)
    replies = {name: federation.nodes[name].evaluate(question) for name in names}
    for name, reply in replies.items():
        assert reply.status is Status.EVALUATED and not len(reply.histogram), name
        session.add_masked(name, reply.masked)
    return replies


def leg(node: SumNode, content: bytes, number: int = 1, kind: str = "survivors", purpose: str = EVALUATION) -> Status:
    return node.leg(kind, content, number, purpose=purpose).status  # type: ignore[arg-type]


@pytest.mark.guarantee(
    "counts of a study with a secure sum leave behind a mask of their own evaluation, or not at all."
)
def test_the_sum_of_the_counts_opens_and_no_nodes_own(federation: Federation) -> None:
    session = federation.server.counting()
    replies = collect(federation, session)
    values = np.array([MaskedVector.from_bytes(reply.masked).values for reply in replies.values()])
    # counts and their noise lie within 2^40 of zero; a uniform number does so with probability 2^-23
    assert (np.abs(values.view(np.int64)) > 2**40).all()
    assert federation.server.finish(session) == [320 * STEPS, 80 * STEPS]
    rows = ["register", "approve", "roster", "evaluation", "evaluated", "survivors"]
    assert all(node.row_kinds() == rows for node in federation.nodes.values())


def test_counts_without_a_mask_are_not_made(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours in putting a vault together: what would leave is a code."""
    node, bare = federation.nodes["north"], charged_evaluation.OwnCounts(lambda _ledger, _task: None)
    federation.server.ask(federation.server.session())
    monkeypatch.setattr("tests.support.sum_nodes.MaskedCounts", lambda *_parts: bare)
    reply = node.evaluate(federation.server.question())
    assert reply.status is Status.FAILED and not reply.masked and not reply.histogram.any()


@pytest.mark.parametrize("mode", ["masked", "shared"])
def test_a_sum_has_the_noise_that_its_nodes_add_and_no_less(mode: str, tmp_path: Path) -> None:
    """Two-sided: of 1,600 draws the deviation is within 10 % but once in 10,000 seeds; two thirds would be 33 % off."""
    study = sum_study(mode, evaluates=True)
    sizes, scale = sum_sizes(4, study.federation), (1.0 if mode == "masked" else 2**-0.5)
    release = charged_evaluation.evaluation_release(study)
    if mode == "shared":
        release = release.with_nodes(4, 3, 1)  # type: ignore[union-attr]
    zeros = np.zeros(1600, np.int64)
    drawn = [charged_evaluation.noisy_histogram(zeros, release, OsRandomness().step()) / STEPS for _ in range(4)]
    assert summed_noise(study, 4, sizes) == pytest.approx(scale * sigma(study) * 2)
    assert np.std(np.sum(drawn, axis=0)) == pytest.approx(scale * sigma(study) * 2, rel=0.1)
    assert np.std(np.sum(drawn[:2], axis=0)) == pytest.approx(scale * sigma(study) * 2**0.5, rel=0.1)
    if mode == "shared":
        assert summed_noise(study, 2, sizes) == pytest.approx(sigma(study)), "as many as are honest have it all"


def test_a_node_that_drops_out_after_its_counts_left_is_in_the_sum_and_one_before_is_not(
    federation: Federation,
) -> None:
    session = federation.server.counting()
    collect(federation, session)
    assert federation.server.finish(session, names=NAMES[:3]) == [320 * STEPS, 80 * STEPS]
    second = federation.server.counting(2)
    collect(federation, second, NAMES[:3])
    assert federation.server.finish(second, 2, names=NAMES[:3]) == [240 * STEPS, 60 * STEPS]
    late = federation.nodes[NAMES[3]].evaluate(federation.server.question(2))
    assert late.status is Status.EVALUATED, "who comes late has paid, and is closed by its own mask"


def test_two_lists_of_survivors_are_never_both_signed(federation: Federation) -> None:
    session, node = federation.server.counting(), federation.nodes["north"]
    collect(federation, session)
    session.fix()
    assert session.survivors is not None
    digests = dict(session.survivors.digests)
    fewer = SurvivorsQuestion(session.context.digest, Survivors.of({n: digests[n] for n in NAMES[:3]})).to_bytes()
    assert leg(node, fewer) is Status.TRAINED
    rows = node.row_kinds()
    assert leg(node, session.survivors_question()) is Status.REFUSED_SURVIVORS
    assert leg(node, fewer) is Status.TRAINED, "the first one is signed again"
    assert node.row_kinds() == rows and rows.count("survivors") == 1
    with node.ledger() as ledger:
        assert set(ledger.state.run(RUN).survivors) == {(1, EVALUATION)}


def test_what_opens_an_evaluation_is_given_under_no_rounds_context_and_the_other_way_round(
    federation: Federation,
) -> None:
    server, node = federation.server, federation.nodes["north"]
    counts, training = server.counting(), server.session()
    server.ask(training)
    collect(federation, counts)
    for session in (counts, training):
        session.fix()
    for session, other in ((counts, "training"), (training, EVALUATION)):
        assert leg(node, session.survivors_question(), purpose=other) is Status.REFUSED_SURVIVORS
    for name in NAMES:
        for session in (counts, training):
            asked = session.survivors_question()
            reply = federation.nodes[name].leg("survivors", asked, purpose=session.context.purpose)
            session.add_signature(name, reply.content)
    for session, other in ((counts, "training"), (training, EVALUATION)):
        opening = session.opening_question("north")
        assert leg(node, opening, kind="opening", purpose=other) is Status.REFUSED_SURVIVORS
        assert leg(node, opening, kind="opening", purpose=session.context.purpose) is Status.TRAINED
    assert node.row_kinds().count("survivors") == 2


def test_a_round_and_an_evaluation_of_one_number_share_no_mask(federation: Federation) -> None:
    """The same values twice, and their difference is as uniform as either."""
    server, node = federation.server, federation.nodes["north"]
    node.trainer.values, node.trainer.model.counts = [80 * STEPS, 20 * STEPS], (80, 20)
    trained, counted = node.train(server.task()), node.evaluate(server.question())
    first, second = (MaskedVector.from_bytes(one.masked) for one in (trained, counted))
    assert (np.abs((first.values[:2] - second.values).view(np.int64)) > 2**20).all()
    assert first.commitment != second.commitment and first.context != second.context
    assert not {one.share_digest for one in first.dealt} & {one.share_digest for one in second.dealt}


@pytest.mark.guarantee("an evaluation that failed or was lost is answered with as many bytes as one that was not.")
def test_a_failed_evaluation_is_as_long_and_is_never_signed(federation: Federation) -> None:
    session, node = federation.server.counting(), federation.nodes["north"]
    whole = collect(federation, session, ("east",))["east"]
    node.trainer.model.counts = None
    failed = node.evaluate(federation.server.question())
    assert failed.status is Status.FAILED and not any(failed.masked)
    assert len(failed.masked) - len("north") == len(whole.masked) - len("east")
    collect(federation, session, ("south", "west"))
    session.fix()
    assert leg(node, session.survivors_question()) is Status.REFUSED_SURVIVORS
    assert node.row_kinds()[3:] == ["evaluation", "evaluation-failed", "evaluated"]


def test_asked_again_the_same_bytes_leave_also_after_a_restart(federation: Federation) -> None:
    node, question = federation.nodes["north"], federation.server.question()
    first = node.evaluate(question)
    again = SumNode(node.folder.parent, "north", node.study)
    assert again.evaluate(question).masked == first.masked and first.masked
    other = replace(question, adapter=ADAPTER + 1)
    assert again.evaluate(other).status is Status.REFUSED_EVALUATION
    assert node.row_kinds().count("evaluation") == 1


def test_a_roster_that_the_node_does_not_take_is_refused_before_anything_is_paid(federation: Federation) -> None:
    node, server = federation.nodes["north"], federation.server
    for bad in (b"", b"FVSS"):
        assert node.evaluate(server.question(roster=bad)).status is Status.REFUSED_ROSTER
    unpinned, node.rule = node.rule, replace(node.rule, pins={})
    assert node.evaluate(server.question()).status is Status.REFUSED_ROSTER
    node.rule = unpinned
    assert node.row_kinds() == ["register", "approve"]
    for file in (node.folder / "secure_sum").glob("*/keys"):
        file.unlink()
    server.ask(server.session(), names=("east",))
    assert node.evaluate(server.question()).status is Status.REFUSED_ROSTER, "no keys were ever used"
