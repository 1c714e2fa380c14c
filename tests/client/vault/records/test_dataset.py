"""What node.toml says of datasets that share records: the strictest of them counts, in each place that asks."""

import json
from typing import Any

import pytest

from client.vault.review.node_files import open_node
from client.vault.review.review import StudyReview
from client.vault.service.node_vault import NodeVault
from shared.errors import BudgetError, PolicyRefusal
from shared.protocol.messages import Status
from shared.study.declaration import Study
from tests.support.nodes import Node, offer, task
from tests.support.operators import register_dataset, review_study

SHARED = {"rounds": 6, "quorum": 3, "secure_sum": "shared", "typical_size": 50}
PLENTY = {"epsilon_if_all_collude": "no-limit"}


def beside(node: Node, *, shares: bool = True, **policy: Any) -> None:
    """Declare a second dataset, under a policy of its own, that holds a record of the first."""
    text = "good word1" if shares else "clinic word"
    (node.folder / "clinic.csv").write_text(f"text,label\n{text},yes\nanother,no\n")
    usual = {"source": "clinic.csv", "epsilon": 3.0, "delta": 1e-5, "declared_size": 50, "models": [node.fingerprint]}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (usual | policy).items())
    node.config.write_text(f"{node.config.read_text()}\n[datasets.clinic]\n{lines}\n")


def shared_noise(node: Node, epsilon: float = 1.0) -> Study:
    return node.study(federation=SHARED, training={"local_steps": 1}, privacy={"epsilon": epsilon})


def tied(node: Node, own: dict[str, Any], other: dict[str, Any], *, shares: bool = True) -> None:
    """Register both datasets, with these policies."""
    node.write(**own)
    beside(node, shares=shares, **other)
    for name in ("ward", "clinic"):
        register_dataset(node.config, name)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "the other shares no noise": ({}, "epsilon_if_all_collude does not say"),
    "the other wants more nodes": (PLENTY | {"smallest_cohort": 4}, "its quorum of 3 is below 4"),
    "the other may spend less": (PLENTY | {"epsilon": 0.9}, ""),
}


@pytest.mark.guarantee(
    "of datasets that share records the largest `smallest_cohort` and `colluders` of node.toml count, and one without "
    "`epsilon_if_all_collude` lets none of them share noise."
)
@pytest.mark.parametrize("case", CASES)
def test_a_dataset_that_shares_records_is_as_strict_as_the_strictest(node: Node, case: str) -> None:
    other, objection = CASES[case]
    tied(node, PLENTY, other)
    study, opened = shared_noise(node), open_node(node.config)
    reviewed = review_study(node.config, study)
    assert objection in "; ".join(reviewed.summary.objections)
    assert ("clinic, ward share records" in "; ".join(reviewed.summary.objections)) is bool(objection)
    assert NodeVault(node.config).offer(offer(study)).status is Status.REFUSED_BUDGET, "as any budget that is shared"
    with opened.open_ledger() as ledger, pytest.raises((PolicyRefusal, BudgetError)):
        StudyReview(opened).approve(ledger, reviewed, "r-1")


@pytest.mark.parametrize("case", CASES)
def test_a_dataset_that_shares_no_record_has_rules_of_its_own(node: Node, case: str) -> None:
    tied(node, PLENTY, CASES[case][0], shares=False)
    study = shared_noise(node)
    assert NodeVault(node.config).offer(offer(study)).status is Status.AWAITING_APPROVAL
    node.approve(study)


def test_the_second_limit_of_an_account_meets_the_roster(node: Node) -> None:
    tied(node, PLENTY, {"epsilon_if_all_collude": 0.5})
    opened = open_node(node.config)
    state, limits = opened.ledger_state(), opened.dataset("ward").limits
    assert state.budget("ward", declared=limits).limit.if_all_collude == 0.5
    assert state.budget("clinic", declared=limits).limit.if_all_collude == 0.5
    assert opened.dataset("ward").rules(state).epsilon_if_all_collude == 0.5


def test_the_most_colluders_of_an_account_count(node: Node) -> None:
    tied(node, PLENTY | {"colluders": 2}, PLENTY | {"smallest_cohort": 4})
    opened = open_node(node.config)
    state = opened.ledger_state()
    for name in ("ward", "clinic"):
        own = opened.settings.own_policy(opened.dataset(name).rules(state))
        assert (own.colluders, own.smallest_cohort) == (2, 4)


def test_a_stricter_dataset_beside_it_stops_a_run_that_was_approved(node: Node) -> None:
    """Records that came to be shared since the approval, or a stricter line of node.toml, hold for its next round."""
    usual = node.study()
    tied(node, {}, {"smallest_cohort": 3})
    node.approve(usual)
    vault = NodeVault(node.config)
    assert vault.train(task(usual)).status is Status.TRAINED
    node.config.write_text(node.config.read_text().replace("smallest_cohort = 3", "smallest_cohort = 4"))
    assert vault.train(task(usual, 2)).status is Status.REFUSED_POLICY
    node.config.write_text(node.config.read_text().replace("smallest_cohort = 4", "smallest_cohort = 3"))
    assert vault.train(task(usual, 2)).status is Status.TRAINED
