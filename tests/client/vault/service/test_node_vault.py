"""One node's vault over the life of a run: rounds, hours, budgets, restarts."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from client.vault.ledger.rows import Limit
from client.vault.records.approved_runs import ApprovedRuns
from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from client.vault_api.messages import write_reply
from shared.errors import DataError, PolicyRefusal
from shared.protocol.messages import LedgerPosition, Status
from tests.support.nodes import Node, offer, task
from tests.support.operators import reject_run

TUESDAY_NOON = datetime(2026, 11, 24, 12, 0)


def test_a_study_waits_for_a_person_is_approved_trained_and_ended(node: Node) -> None:
    study, node_vault = node.study(), NodeVault(node.config, now=lambda: TUESDAY_NOON)
    assert node_vault.offer(offer(study)).status is Status.AWAITING_APPROVAL
    assert node_vault.train(task(study)).status is Status.REFUSED_POLICY
    assert node.rows() == [], "an offer and a refusal enter nothing"
    node.approve(study)
    assert node_vault.offer(offer(study)).status is Status.APPROVED
    first = node_vault.train(task(study))
    assert first.status is Status.TRAINED and first.update.any()
    assert write_reply(node_vault.train(task(study))) == write_reply(first)
    assert write_reply(NodeVault(node.config).train(task(study))) == write_reply(first), "also after a restart"
    assert node_vault.ledger_position() == LedgerPosition(first.ledger.height + 1, node_vault.ledger_position().head)
    assert reject_run(node.config, "r-1") == "r-1"
    assert node_vault.offer(offer(study)).status is Status.REJECTED
    assert node_vault.train(task(study, 2)).status is Status.REFUSED_POLICY
    with pytest.raises(PolicyRefusal, match="was rejected"):
        node.approve(study)


@pytest.mark.guarantee(
    "a run trains on the records as they were when it was approved, whatever happens to the file later."
)
def test_the_file_may_change_or_go_and_the_run_trains_on_what_was_approved(node: Node) -> None:
    study = node.study()
    node.approve(study)
    kept = ApprovedRuns(open_node(node.config).folders.approved)
    before = kept.train("r-1")
    node.data.write_text("text,label\nother,no\n")
    assert NodeVault(node.config).train(task(study)).status is Status.TRAINED
    node.data.unlink()
    assert NodeVault(node.config).train(task(study, 2)).status is Status.TRAINED
    assert kept.train("r-1").digest(["ids", "target"]) == before.digest(["ids", "target"])
    for path in open_node(node.config).folders.approved.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    kept.forget("r-1")
    assert NodeVault(node.config).train(task(study, 3)).status is Status.REFUSED_POLICY
    with pytest.raises(DataError, match="'r-1' was approved with"):
        kept.study("r-1")


def test_rounds_are_trained_in_the_policys_hours(node: Node) -> None:
    study = node.study()
    node.write(days=["mon"], hours="22:00-06:00")
    node.approve(study)
    noon = NodeVault(node.config, now=lambda: TUESDAY_NOON)
    assert noon.train(task(study)).status is Status.REFUSED_HOURS
    night = NodeVault(node.config, now=lambda: datetime(2026, 11, 24, 1, 30))
    first = night.train(task(study))
    assert first.status is Status.TRAINED, "the night that began on Monday"
    assert write_reply(noon.train(task(study))) == write_reply(first), "what was released may always be sent again"


def test_a_policy_that_became_stricter_holds_in_the_next_round(node: Node) -> None:
    study, node_vault = node.study(), NodeVault(node.config)
    node.approve(study)
    assert node_vault.train(task(study)).status is Status.TRAINED
    with open_node(node.config).open_ledger() as ledger:
        spent = ledger.state.spent("ward")
    node.write(epsilon=round(spent + 1e-3, 6))
    assert node_vault.train(task(study, 2)).status is Status.REFUSED_BUDGET
    node.write(smallest_cohort=9)
    assert node_vault.train(task(study, 2)).status is Status.REFUSED_POLICY
    node.write()
    assert node_vault.train(task(study, 2)).status is Status.TRAINED


@pytest.mark.parametrize("stricter", [{"epsilon_per_study": 0.5}, {"readable_columns": ["text"]}])
def test_columns_and_epsilon_of_a_study_are_checked_at_each_round(node: Node, stricter: dict[str, Any]) -> None:
    study, node_vault = node.study(privacy={"epsilon": 1.0}), NodeVault(node.config)
    node.approve(study)
    assert node_vault.train(task(study)).status is Status.TRAINED
    node.write(**stricter)
    assert node_vault.train(task(study, 2)).status is Status.REFUSED_POLICY
    assert node_vault.offer(offer(study, "r-2")).status is Status.REFUSED_POLICY
    assert node.rows().count("reserve") == 1, "and nothing is paid"


def test_a_base_model_that_left_its_folder_ends_the_rounds_of_a_loaded_run(node: Node) -> None:
    study, node_vault = node.study(), NodeVault(node.config)
    node.approve(study)
    assert node_vault.train(task(study)).status is Status.TRAINED
    there, rows = node.config.read_text(), node.rows()
    node.config.write_text(there.replace("models = ", f'models = "{node.folder}" # ', 1))
    assert node_vault.train(task(study, 2)).status is Status.REFUSED_MODEL
    assert node.rows() == rows, "and nothing is paid"
    node.config.write_text(there)
    assert node_vault.train(task(study, 2)).status is Status.TRAINED


def test_a_spent_budget_is_told_before_hours_that_will_pass(node: Node) -> None:
    study, night = node.study(), datetime(2026, 11, 24, 1, 30)
    node.write(days=["mon"], hours="22:00-06:00")
    node.approve(study)
    node_vault = NodeVault(node.config, now=lambda: night)
    assert node_vault.train(task(study)).status is Status.TRAINED
    with open_node(node.config).open_ledger() as ledger:
        spent = ledger.state.spent("ward")
    node.write(days=["mon"], hours="22:00-06:00", epsilon=round(spent + 1e-3, 6))
    noon = NodeVault(node.config, now=lambda: TUESDAY_NOON)
    assert noon.train(task(study, 2)).status is Status.REFUSED_BUDGET


def test_a_stricter_delta_of_today_makes_what_is_spent_more(node: Node) -> None:
    study, node_vault = node.study(privacy={"delta": 1e-7}), NodeVault(node.config)
    node.write(delta=1e-4)
    node.approve(study)
    assert node_vault.train(task(study)).status is Status.TRAINED
    with open_node(node.config).open_ledger() as ledger:
        per_round = ledger.state.runs["r-1"].per_round
        budgets = [ledger.state.budget("ward", declared={"ward": Limit(3.0, d)}, earmarked=False) for d in (1e-4, 1e-7)]
    loose, strict = (budget.epsilon(per_round) for budget in budgets)
    assert loose < strict
    node.write(epsilon=round((loose + strict) / 2, 6), delta=1e-4)
    assert node_vault.train(task(study, 2)).status is Status.TRAINED
    node.write(epsilon=round((loose + strict) / 2, 6), delta=1e-7)
    assert node_vault.train(task(study, 3)).status is Status.REFUSED_BUDGET


def test_another_study_under_an_approved_name_is_refused(node: Node) -> None:
    study, other = node.study(), node.study(training={"local_steps": 9})
    node.approve(study)
    node_vault = NodeVault(node.config)
    assert node_vault.train(task(other)).status is Status.REFUSED_POLICY
    assert node_vault.train(task(study, run="r-2")).status is Status.REFUSED_POLICY
    assert node_vault.train(task(study, 4)).status is Status.REFUSED_STUDY, "the study has three rounds"
    assert "reserve" not in node.rows()


def test_a_server_that_knows_a_longer_ledger_is_told_nothing(node: Node) -> None:
    study = node.study()
    node.approve(study)
    ahead = replace(task(study), server_copy=LedgerPosition(99, "a" * 64))
    reply = NodeVault(node.config).train(ahead)
    assert reply.status is Status.REFUSED_LEDGER and not reply.update.any() and len(reply.update) == len(ahead.adapter)
    assert "reserve" not in node.rows()


def test_updates_leave_at_whole_slots(node: Node) -> None:
    study, slept = node.study(), list[float]()
    node.write(node="release_slot_s = 900.0")
    node.approve(study)
    node_vault = NodeVault(node.config, sleep=slept.append)
    node_vault.train(task(study))
    node_vault.train(task(study, 9))
    assert len(slept) == 2 and all(0 <= seconds <= 900 for seconds in slept), "a refusal waits as long"


def test_a_base_model_that_is_gone_by_the_first_round_is_given_as_the_reason(node: Node, tmp_path: Path) -> None:
    study = node.study()
    node.approve(study)
    config = node.config.read_text()
    node.config.write_text(re.sub('models = ".*"', f'models = "{tmp_path / "empty"}"', config, count=1))
    assert NodeVault(node.config).train(task(study)).status is Status.REFUSED_MODEL
    node.config.write_text(config)
    assert NodeVault(node.config).train(task(study)).status is Status.TRAINED, "nothing was paid for"
