"""How a node stands to a study on offer: a function of public facts and the ledger."""

from dataclasses import replace
from typing import Any

import pytest

from client.vault.records.approved_runs import ApprovedRuns
from client.vault.review.node_files import open_node
from client.vault.review.review import dimension_of
from client.vault.service.node_vault import NodeVault
from shared.errors import BudgetError
from shared.protocol.messages import Status
from tests.support.nodes import Node, offer, task
from tests.support.operators import reject_run


@pytest.mark.parametrize(
    ("changes", "sections", "status"),
    [
        ({"smallest_cohort": 4}, {}, Status.REFUSED_POLICY),
        ({"largest_update_bytes": 4}, {}, Status.REFUSED_POLICY),
        ({"study_must_state": ["contact"]}, {}, Status.REFUSED_POLICY),
        ({"study_must_state": ["contact"]}, {"study": {"contact": "a@example.org"}}, Status.AWAITING_APPROVAL),
        ({"unit": "patient", "unit_column": "label"}, {}, Status.REFUSED_POLICY),
        ({"models": ["0" * 64]}, {}, Status.REFUSED_POLICY),
        ({}, {"model": {"source": "bundled:minilm", "fingerprint": "1" * 64}}, Status.REFUSED_MODEL),
        ({}, {"task": {"max_length": 65}}, Status.REFUSED_MODEL),
        ({"approval": "within-policy"}, {"task": {"max_length": 65}}, Status.REFUSED_MODEL),
        ({"epsilon": 1.0}, {"privacy": {"epsilon": 1.0}}, Status.AWAITING_APPROVAL),
        ({"epsilon": 1.0}, {"privacy": {"epsilon": 1.5}}, Status.REFUSED_POLICY),
        ({"epsilon": 1.2}, {"privacy": {"epsilon": 1.0}, "evaluation": {"epsilon": 1.0}}, Status.AWAITING_APPROVAL),
        ({"epsilon": 1.2, "split_by": "label"}, {"evaluation": {"epsilon": 1.0}}, Status.REFUSED_POLICY),
    ],
)
def test_an_offer_outside_the_policy_is_refused_for_a_public_reason(
    node: Node, changes: dict[str, Any], sections: dict[str, Any], status: Status
) -> None:
    node.write(**changes)
    assert NodeVault(node.config).offer(offer(node.study(**sections))).status is status
    assert node.rows() == []


def test_a_run_that_its_base_model_cannot_carry_out_is_refused_and_costs_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = node.study(task={"max_length": 65})
    sent = replace(task(node.study()), study_sha256=study.sha256)
    with monkeypatch.context() as as_it_was:
        as_it_was.setattr("shared.tasks.kind.check_length", lambda *_, **__: None)
        as_it_was.setattr("shared.adapted_model.model.refuse_what_cannot_run", lambda *_: None)
        node.approve(study)
    dimension_of.cache_clear()
    assert NodeVault(node.config).train(sent).status is Status.REFUSED_MODEL
    assert node.rows() == ["register", "approve"]


def test_within_policy_approves_what_the_policy_allows_and_no_more_than_the_budget(node: Node) -> None:
    node.write(approval="within-policy")
    node.register()
    node_vault = NodeVault(node.config)
    approved, refused = node.study(privacy={"epsilon": 2.0}), node.study(privacy={"epsilon": 2.9})
    reply = node_vault.offer(offer(approved))
    assert (reply.status, reply.declared_size) == (
        Status.APPROVED,
        open_node(node.config).approved.declared_size("r-1"),
    )
    assert node.rows() == ["register", "approve"]
    reply = node_vault.offer(offer(refused, "r-2"))
    assert (reply.status, reply.declared_size) == (Status.REFUSED_BUDGET, 0), "nothing is named before a yes"
    assert node_vault.offer(offer(node.study(privacy={"epsilon": 9.0}), "r-3")).status is Status.REFUSED_POLICY
    assert node.rows() == ["register", "approve"]


def test_within_policy_leaves_a_dataset_that_nobody_registered_to_a_person(node: Node) -> None:
    node.write(approval="within-policy")
    assert NodeVault(node.config).offer(offer(node.study())).status is Status.AWAITING_APPROVAL
    node.approve(node.study(privacy={"epsilon": 0.5}))
    small = node.study(privacy={"epsilon": 1.0})
    assert NodeVault(node.config).offer(offer(small, "r-2")).status is Status.APPROVED
    assert node.rows() == ["register", "approve", "approve"]


SOURCES = {
    "as it was registered": None,
    "gone": "",
    "without its columns": "nothing,here\n1,2\n",
    "not a table": "\x00\x01",
    "one record, of another dataset": "text,label\nclinic word,no\n",
}


@pytest.mark.parametrize("source", SOURCES)
def test_no_record_changes_what_the_policy_answers_nor_the_height_that_is_sent(node: Node, source: str) -> None:
    node.write(approval="within-policy")
    node.register()
    node.register_other("clinic", "clinic word")
    if SOURCES[source] is not None:
        node.data.write_text(SOURCES[source] or "")
    if source == "gone":
        node.data.unlink()
    study, node_vault = node.study(), NodeVault(node.config)
    assert node_vault.offer(offer(study)).status is Status.APPROVED
    assert node_vault.offer(offer(study, "r-2")).status is Status.REFUSED_BUDGET
    reply = node_vault.train(task(study))
    usable = source in ("as it was registered", "one record, of another dataset")
    assert reply.status is (Status.TRAINED if usable else Status.FAILED)
    assert reply.ledger.height == 4, "registered twice, approved, and paid for whatever came of it"
    assert node.rows()[-3:] == (["approve", "reserve", "commit"] if usable else ["reserve", "fail", "commit"])


@pytest.mark.guarantee("a run that the policy approved trains on the records as its first round found them.")
def test_a_run_of_the_policy_trains_on_registered_records_as_its_first_round_found_them(node: Node) -> None:
    node.write(approval="within-policy", holdout=0.0)
    node.register()
    rows = node.data.read_text().splitlines()
    node.data.write_text("\n".join([*rows[:41], "came after,yes"]) + "\n")
    study, node_vault, kept = (
        node.study(),
        NodeVault(node.config),
        ApprovedRuns(open_node(node.config).folders.approved),
    )
    assert node_vault.offer(offer(study)).status is Status.APPROVED
    assert not kept.taken("r-1"), "nothing is read before a round is paid for"
    assert node_vault.train(task(study)).status is Status.TRAINED
    assert len(kept.train("r-1")) == 40, "a row that was not registered is left out"
    node.data.unlink()
    assert NodeVault(node.config).train(task(study, 2)).status is Status.TRAINED


def test_two_datasets_are_told_apart_by_a_person(node: Node) -> None:
    node.write(approval="within-policy")
    node.register()
    section = node.config.read_text().split("[datasets.ward]")[1]
    node.config.write_text(node.config.read_text() + "[datasets.clinic]" + section)
    assert NodeVault(node.config).offer(offer(node.study())).status is Status.AWAITING_APPROVAL


def test_a_second_run_asks_again_and_a_full_budget_says_no(node: Node) -> None:
    study = node.study(privacy={"epsilon": 2.5})
    node.approve(study)
    assert NodeVault(node.config).offer(offer(study, "r-2")).status is Status.REFUSED_BUDGET
    with pytest.raises(BudgetError, match="brings what is spent or earmarked to"):
        node.approve(study, "r-2")


def test_the_latest_decision_is_what_the_server_hears(node: Node) -> None:
    study, node_vault = node.study(), NodeVault(node.config)
    node_vault.offer(offer(study))
    reject_run(node.config, "r-1")
    assert node_vault.offer(offer(study)).status is Status.REJECTED and node.rows() == ["reject"]
    node.approve(study)
    assert node_vault.offer(offer(study)).status is Status.APPROVED
    # as a crash between the row of the yes and the offer's file leaves it
    open_node(node.config).offers.reject("r-1")
    assert node_vault.offer(offer(study)).status is Status.APPROVED


def test_a_yes_of_the_policy_says_so_in_its_row(node: Node) -> None:
    node.write(approval="within-policy")
    node.register()
    assert NodeVault(node.config).offer(offer(node.study())).status is Status.APPROVED
    (decision,) = open_node(node.config).ledger_state().decisions["r-1"]
    assert (decision.answer, decision.by) == ("yes", "the policy in node.toml")
