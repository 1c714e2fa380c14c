"""An evaluation on a real node: paid before a record is read, answered once, and nothing but noisy counts."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

import client.vault.service.charged_evaluation as module
from client.answer import answer
from client.link.vault_client import VaultClient
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.outbox import Outbox
from client.vault.ledger.rows import evaluations_of
from client.vault.records.approved_runs import ApprovedRuns
from client.vault.review.node_files import open_node
from client.vault.review.summary import evaluation_in_words
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from client.vault_api.messages import write_evaluation
from shared.adapted_model.model import build
from shared.errors import RunError
from shared.private_evaluation.cells import STEPS, Cells
from shared.private_evaluation.noise import sigma
from shared.protocol.evaluation_records import decode_evaluation_reply, encode_evaluation
from shared.protocol.messages import EvaluationReply, EvaluationTask, LedgerPosition, Status
from shared.study.declaration import Study
from tests.support.killed_between import Killed, killed_after
from tests.support.nodes import Node, offer, task
from tests.support.operators import reject_run, review_study

EVALUATION = {"epsilon": 1.0, "rounds": [1, 2]}
WITH_GROUPS = EVALUATION | {"subgroup": {"column": "sex", "values": ["f", "m"]}}


@pytest.fixture
def study(node: Node) -> Study:
    """Approved on a node that holds out some of its records, which name a sex."""
    write_table(node, 60)
    node.write(**POLICY)
    study = node.study(evaluation=WITH_GROUPS)
    node.approve(study)
    return study


POLICY = {"holdout": 0.3, "declared_size": 42, "readable_columns": ["text", "label", "sex"]}


def write_table(node: Node, rows: int) -> None:
    lines = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'},{'fmx'[i % 3]}" for i in range(rows)]
    node.data.write_text("text,label,sex\n" + "\n".join(lines) + "\n")


def asked(study: Study, number: int = 1, adapter: np.ndarray | None = None, **more: Any) -> EvaluationTask:
    return EvaluationTask(study.sha256, "r-1", number, build(study).start if adapter is None else adapter, **more)


def kinds(node: Node) -> list[str]:
    return node.rows()[2:]


def test_a_run_with_evaluations_is_trained_evaluated_and_answered_again_with_the_same_bytes(
    node: Node, study: Study
) -> None:
    vault = NodeVault(node.config)
    trained = vault.train(task(study))
    assert trained.status is Status.TRAINED
    first = vault.evaluate(asked(study, adapter=build(study).start + trained.update))
    assert first.status is Status.EVALUATED and len(first.histogram) == Cells.of(study).length == 6
    assert first.ledger.height == len(node.rows()) - 1, "where it stood when it was paid for"
    again = asked(study, adapter=build(study).start + trained.update)
    assert write_evaluation(vault.evaluate(again)) == write_evaluation(first)
    assert write_evaluation(NodeVault(node.config).evaluate(again)) == write_evaluation(first), "after a restart"
    assert kinds(node) == ["reserve", "commit", "evaluation", "evaluated"], "asking again costs nothing"
    second = vault.evaluate(asked(study, 3))
    assert second.status is Status.EVALUATED and (second.histogram != first.histogram).all()
    assert vault.train(task(study, 2)).status is Status.TRAINED, "training goes on with its own adapter"


def test_counts_are_those_of_held_out_records_with_the_noise_that_was_charged(node: Node, study: Study) -> None:
    kept = ApprovedRuns(open_node(node.config).folders.approved)
    held_out, train = kept.holdout("r-1"), kept.train("r-1")
    texts = {
        name: {part.content(row)[:0] + part["ids"][row].tobytes() for row in range(len(part))}
        for name, part in (("held", held_out), ("train", train))
    }
    assert len(held_out) > 5 and not texts["held"] & texts["train"]
    reply, exact = NodeVault(node.config).evaluate(asked(study)), len(held_out)
    noise = sigma(study) * np.sqrt(6)
    assert abs(reply.histogram.sum() / STEPS - exact) < 6 * noise
    assert (reply.histogram % STEPS != 0).any(), "the noise lies on the fine grid"


ATTACKS: dict[str, tuple[dict[str, Any], Status]] = {
    "a number that the study does not declare": ({"number": 4}, Status.REFUSED_EVALUATION),
    "before any round": ({"number": 0}, Status.REFUSED_EVALUATION),
    "another study": ({"study_sha256": "0" * 64}, Status.REFUSED_POLICY),
    "another run": ({"study_run": "r-2"}, Status.REFUSED_POLICY),
    "an adapter of another length": ({"adapter": np.zeros(3, np.float32)}, Status.REFUSED_STUDY),
    "an adapter far away": ({"scale": 1e6}, Status.REFUSED_ADAPTER),
    "an adapter that is no number": ({"scale": np.nan}, Status.REFUSED_STUDY),
    "an echo of rows that are not ours": (
        {"server_copy": LedgerPosition(40, "a" * 64, "b" * 64)},
        Status.REFUSED_LEDGER,
    ),
}


def test_what_the_study_does_not_declare_is_refused_and_costs_nothing(node: Node, study: Study) -> None:
    vault, start = NodeVault(node.config), build(study).start
    for case, (changes, status) in ATTACKS.items():
        moved = {"adapter": start + np.float32(changes["scale"])} if "scale" in changes else changes
        usual = {"study_sha256": study.sha256, "study_run": "r-1", "number": 1, "adapter": start}
        reply = vault.evaluate(EvaluationTask(**usual | moved))
        assert (reply.status, len(reply.histogram), kinds(node)) == (status, 0, []), case


def test_a_second_question_of_one_number_with_another_adapter_is_refused(node: Node, study: Study) -> None:
    vault = NodeVault(node.config)
    first = vault.evaluate(asked(study))
    other = asked(study, adapter=build(study).start + np.float32(1e-4))
    refused = vault.evaluate(other)
    assert (refused.status, len(refused.histogram)) == (Status.REFUSED_EVALUATION, 0)
    assert write_evaluation(vault.evaluate(asked(study))) == write_evaluation(first)
    assert kinds(node) == ["evaluation", "evaluated"]


@pytest.mark.parametrize("end", ["reject", "withdraw"])
def test_after_the_end_nothing_is_evaluated_and_what_was_released_is_all_that_comes(
    end: str, node: Node, study: Study
) -> None:
    vault = NodeVault(node.config)
    first = vault.evaluate(asked(study))
    if end == "reject":
        reject_run(node.config, "r-1")
    else:
        with open_node(node.config).open_ledger() as ledger:
            ledger.withdraw("ward")
    rows = len(node.rows())
    assert vault.evaluate(asked(study, 2)).status is Status.REFUSED_POLICY
    assert NodeVault(node.config).evaluate(asked(study, 2)).status is Status.REFUSED_POLICY
    again = vault.evaluate(asked(study))
    assert write_evaluation(again) == write_evaluation(first) or len(again.histogram) == 0
    assert len(node.rows()) == rows


def test_a_policy_that_says_no_refuses_the_study_and_evaluations_that_were_approved_before(
    node: Node, study: Study
) -> None:
    node.write(**POLICY, evaluation="no")
    vault = NodeVault(node.config)
    assert vault.evaluate(asked(study)).status is Status.REFUSED_POLICY
    assert vault.train(task(study)).status is Status.TRAINED, "its training goes on"
    assert vault.offer(offer(study, "r-2")).status is Status.REFUSED_POLICY
    assert 'evaluation = "no"' in str(review_study(node.config, study).summary.objections)


def test_a_policy_that_says_no_keeps_back_what_was_counted_and_not_sent_yet(node: Node, study: Study) -> None:
    first, rows = NodeVault(node.config).evaluate(asked(study)), len(node.rows())
    allowing = node.config.read_text()
    node.write(**POLICY, evaluation="no")
    refused = NodeVault(node.config).evaluate(asked(study))
    assert (refused.status, len(refused.histogram)) == (Status.REFUSED_POLICY, 0)
    node.config.write_text(allowing)
    assert write_evaluation(NodeVault(node.config).evaluate(asked(study))) == write_evaluation(first)
    assert len(node.rows()) == rows


@pytest.mark.parametrize(("said", "stance"), [("ask", Status.AWAITING_APPROVAL), ("yes", Status.APPROVED)])
def test_no_policy_alone_approves_an_evaluation_unless_it_says_so(said: str, stance: Status, node: Node) -> None:
    write_table(node, 60)
    node.write(**POLICY, approval="within-policy", evaluation=said)
    node.register()
    study = node.study(evaluation=WITH_GROUPS, privacy={"epsilon": 1.4})
    vault = NodeVault(node.config)
    assert vault.offer(offer(study)).status is stance
    assert vault.offer(offer(node.study(privacy={"epsilon": 0.5}), "r-2")).status is Status.APPROVED
    if stance is Status.APPROVED:
        assert vault.evaluate(asked(study)).status is Status.EVALUATED, "records are taken after it is paid for"


def test_hours_and_budget_hold_for_evaluations(node: Node, study: Study) -> None:
    node.write(**POLICY, hours="22:00-06:00")
    noon = NodeVault(node.config, now=lambda: datetime(2026, 11, 24, 12, 0))
    assert noon.evaluate(asked(study)).status is Status.REFUSED_HOURS
    node.write(**POLICY | {"epsilon": 0.1})
    assert NodeVault(node.config).evaluate(asked(study)).status is Status.REFUSED_BUDGET
    assert kinds(node) == []


@pytest.mark.guarantee("no held-out record is read for an evaluation before its cost is on disk.")
def test_the_cost_is_on_disk_before_a_held_out_record_is_read(
    node: Node, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, seen = ApprovedRuns.holdout, list[list[str]]()

    def holdout(self: ApprovedRuns, run: str) -> Any:
        seen.append(kinds(node))
        return honest(self, run)

    monkeypatch.setattr(ApprovedRuns, "holdout", holdout)
    assert NodeVault(node.config).evaluate(asked(study)).status is Status.EVALUATED
    assert NodeVault(node.config).evaluate(asked(study, 4)).status is Status.REFUSED_EVALUATION
    assert seen == [["evaluation"]]


@pytest.mark.guarantee("after the reservation of an evaluation every trouble is answered with one code.")
@pytest.mark.parametrize("where", ["exact_histogram", "noisy_histogram"])
def test_whatever_goes_wrong_is_one_code_is_paid_for_and_waits_for_a_person(
    where: str, node: Node, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("patient Anna is no yes")

    with monkeypatch.context() as patched:
        patched.setattr(module, where, fails)
        vault = NodeVault(node.config)
        reply = vault.evaluate(asked(study))
    assert (reply.status, reply.histogram.tolist()) == (Status.FAILED, [0] * 6)
    assert b"Anna" not in write_evaluation(reply)
    assert kinds(node) == ["evaluation", "evaluation-failed", "evaluated"]
    assert write_evaluation(vault.evaluate(asked(study))) == write_evaluation(reply), "a failure is final"
    assert vault.evaluate(asked(study, 2)).status is vault.train(task(study)).status is Status.REFUSED_POLICY
    with open_node(node.config).open_ledger() as ledger:
        assert ledger.state.run("r-1").waiting_in_words == "evaluation 1"
        ledger.resume("r-1", [], [1])
    assert vault.evaluate(asked(study, 2)).status is Status.EVALUATED


def test_held_out_records_that_cannot_be_read_fail_as_anything_else(node: Node, study: Study) -> None:
    folder = open_node(node.config).folders.approved
    for path in folder.rglob("holdout.npz"):
        path.write_bytes(b"no records")
    reply = NodeVault(node.config).evaluate(asked(study))
    assert (reply.status, reply.histogram.tolist()) == (Status.FAILED, [0] * 6)


def test_a_withdrawal_while_it_is_counted_lets_nothing_leave(
    node: Node, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module.exact_histogram

    def withdrawn_meanwhile(*given: Any, **named: Any) -> Any:
        with open_node(node.config).open_ledger() as ledger:
            ledger.withdraw("ward")
        return honest(*given, **named)

    monkeypatch.setattr(module, "exact_histogram", withdrawn_meanwhile)
    reply = NodeVault(node.config).evaluate(asked(study))
    assert (reply.status, reply.histogram.any()) == (Status.FAILED, False)


WRITES = [(Ledger, ["_append"]), (Outbox, ["keep"]), (Ledger, ["prune_outbox"])]


@pytest.mark.guarantee("an evaluation says nothing of the held-out records but its noisy counts, and is answered once.")
def test_killed_between_any_two_writes_it_is_counted_once_and_answered_alike_for_ever(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(node, 40)
    node.write(**POLICY | {"epsilon": 90.0})
    honest, counted = module.noisy_histogram, list[np.ndarray]()

    def noisy(*given: Any) -> np.ndarray:
        counted.append(honest(*given))
        return counted[-1]

    monkeypatch.setattr(module, "noisy_histogram", noisy)
    study, outcomes, died = node.study(evaluation=EVALUATION), list[Status](), list[bool]()
    for writes in range(5):
        counted.clear()
        run = f"r-{writes}"
        node.approve(study, run)
        question = EvaluationTask(study.sha256, run, 1, build(study).start)
        with killed_after(writes, WRITES, monkeypatch) as came_to_it:
            with suppress(Killed):
                NodeVault(node.config).evaluate(question)
            died.append(came_to_it())
        replies = [NodeVault(node.config).evaluate(question) for _ in range(2)]
        assert write_evaluation(replies[0]) == write_evaluation(replies[1])
        expected = counted[0] if replies[0].status is Status.EVALUATED else np.zeros(2)
        assert len(counted) <= 1 and (replies[0].histogram == expected).all(), "counted once"
        outcomes.append(replies[0].status)
        with open_node(node.config).open_ledger() as ledger:
            evaluations = ledger.state.run(run).evaluations
            assert evaluations is not None and set(evaluations.attempts) == {1}, "it is paid for, once"
    # before anything is paid for; paid for, and nothing kept; kept, and not entered; entered; not killed
    assert died == [True] * 4 + [False]
    assert outcomes == [Status.EVALUATED, Status.LOST, Status.EVALUATED, Status.EVALUATED, Status.EVALUATED]


def test_bytes_that_are_not_kept_any_more_are_lost_and_others_are_never_sent(node: Node, study: Study) -> None:
    vault = NodeVault(node.config)
    vault.evaluate(asked(study))
    outbox = Outbox(open_node(node.config).folders.ledger.with_name("outbox"))
    outbox.keep(evaluations_of("r-1"), 1, b"other bytes")
    assert vault.evaluate(asked(study)).status is Status.REFUSED_LEDGER
    (file,) = (open_node(node.config).folders.ledger.with_name("outbox")).iterdir()
    file.unlink()
    lost = vault.evaluate(asked(study))
    assert (lost.status, lost.histogram.tolist()) == (Status.LOST, [0] * 6)
    assert kinds(node) == ["evaluation", "evaluated"]


def sent_for(node: Node, question: EvaluationTask) -> RecordDict:
    message = Message(encode_evaluation(question), dst_node_id=7, message_type="query")
    return answer(message, NodeVault(node.config))


@pytest.mark.guarantee("a node sends packed updates, protocol fields and typed codes, and nothing else.")
@pytest.mark.parametrize("rows", [30, 120])
def test_an_answer_has_one_length_and_a_closed_list_of_fields_however_many_are_held_out(rows: int, node: Node) -> None:
    write_table(node, rows)
    node.write(**POLICY)
    study = node.study(evaluation=WITH_GROUPS, federation={"quorum": 3, "smallest_declared_size": 10})
    node.approve(study)
    records = sent_for(node, asked(study))
    (record,) = records.values()
    assert isinstance(record, ConfigRecord)
    assert {name: len(value) if isinstance(value, (str, bytes)) else 0 for name, value in record.items()} == {
        "protocol-version": 0,
        "study-run": 3,
        "number": 0,
        "adapter-sha256": 64,
        "status": 0,
        "height": 12,
        "head": 64,
        "mac": 64,
        "histogram": 8 * 6,
    }
    public = {"protocol-version": 9, "study-run": "r-1", "number": 1, "status": int(Status.EVALUATED)}
    assert public.items() <= dict(record).items()
    reply = decode_evaluation_reply(records)
    assert reply.adapter_sha256 == asked(study).adapter_sha256 and reply.ledger.height == 3
    written = json.dumps({name: str(value) for name, value in record.items()}).lower()
    assert not [secret for secret in ("ward", "word", "good", ".csv", "sex", str(node.folder)) if secret in written]


def test_an_unreadable_question_and_a_vault_that_is_away_are_codes(node: Node, study: Study) -> None:
    records = encode_evaluation(asked(study))
    broken = records["evaluation"]
    assert isinstance(broken, ConfigRecord)
    broken["number"] = "one"
    replies = [answer(Message(records, dst_node_id=7, message_type="query"), NodeVault(node.config))]

    class Away(NodeVault):
        def evaluate(self, task: EvaluationTask) -> EvaluationReply:
            raise RunError("away")

    message = Message(encode_evaluation(asked(study)), dst_node_id=7, message_type="query")
    replies.append(answer(message, Away(node.config)))
    assert [decode_evaluation_reply(reply).status for reply in replies] == [Status.REFUSED_STUDY, Status.FAILED]


@pytest.fixture
def served(node: Node, study: Study) -> Iterator[VaultClient]:
    """A client of the node's vault behind its socket."""
    steps, socket = Steps(), node.folder / "socket" / "vault.sock"
    with serving(VaultService(NodeVault(node.config, on_step=steps), steps), socket):
        client = VaultClient(socket, patience_s=20.0)
        yield client
        client.close()


def test_the_socket_carries_an_evaluation_as_it_is(served: VaultClient, node: Node, study: Study) -> None:
    first = served.evaluate(asked(study))
    assert first.status is Status.EVALUATED
    assert write_evaluation(NodeVault(node.config).evaluate(asked(study))) == write_evaluation(first)
    status = served.status()
    assert (status.busy, status.study_run, status.steps_done) == (False, "r-1", 0), "how many are held out is not told"
    echoed = served.evaluate(asked(study, 2, server_copy=first.ledger))
    assert echoed.status is Status.EVALUATED


def test_what_an_operator_approves_is_said_before(node: Node, study: Study) -> None:
    words = review_study(node.config, node.study(evaluation=WITH_GROUPS)).summary.in_words
    assert "It also evaluates 3 times, after rounds 1, 2, 3: 6 noisy counts over held-out records leave" in words
    assert "(right and wrong answers, by sex (f, m))" in words and "beside the counts below nothing else" in words
    assert "Somebody of whom some records are trained on and others held out pays for both." in words
    assert "For a record that is held out all of them together cost epsilon 1." in words


def test_what_leaves_behind_a_mask_is_said_before(node: Node) -> None:
    for mode, noise in (("masked", "each with noise of"), ("shared", "each with this node's part of a noise of")):
        sections = {"federation": {"secure_sum": mode, "typical_size": 60}, "training": {"local_steps": 1}}
        releases, *_ = evaluation_in_words(node.study(evaluation=WITH_GROUPS, **sections), both_sides=False)
        assert "leave this house behind a mask, so that only their sum over all nodes is opened" in releases
        assert noise in releases
