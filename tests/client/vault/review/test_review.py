"""Reviewing a study and approving it: what is entered, and what is compared again before it is."""

from typing import Any

import pytest

from client.vault.ledger.ledger import Ledger
from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from shared.errors import BudgetError, LedgerError, PolicyRefusal, SettingsError
from shared.protocol.messages import Status
from tests.support.ledgers import rows_of
from tests.support.nodes import Node, offer, task
from tests.support.operators import enter_approval, review_study


def test_a_row_of_the_approval_is_one_and_of_the_records_one_whatever_they_share(node: Node) -> None:
    heights = set()
    for text in ("apart", "bad word0"):
        node.register_other(text.replace(" ", "-"), text)
        before = len(node.rows())
        node.approve(node.study(privacy={"epsilon": 0.4}), f"r-{text}")
        heights.add(len(node.rows()) - before)
    assert heights == {2}
    with open_node(node.config).open_ledger() as ledger:
        assert ledger.state.account("ward") == {"ward", "bad-word0"}


@pytest.mark.parametrize("changes", [{"declared_size": 60}, {"unit": "patient", "unit_column": "label"}])
def test_what_spending_is_measured_in_stays_as_it_was_registered(node: Node, changes: dict[str, Any]) -> None:
    study, node_vault = node.study(privacy={"epsilon": 1.0}), NodeVault(node.config)
    node.approve(study)
    node.write(approval="within-policy", **changes)
    unit = {"privacy": {"epsilon": 1.0, "unit": changes.get("unit", "record")}}
    assert node_vault.offer(offer(node.study(**unit), "r-2")).status is Status.REFUSED_POLICY
    assert node_vault.train(task(study)).status is Status.REFUSED_POLICY
    for refused in (node.register, lambda: node.approve(node.study(**unit), "r-2")):
        with pytest.raises(PolicyRefusal, match="was registered with one record as its unit and declared_size = 54"):
            refused()
    assert node.rows() == ["register", "approve"]


def test_the_question_names_the_columns_and_what_one_study_may_spend(node: Node) -> None:
    node.data.write_text(node.data.read_text().replace("text,label", "report,label"))
    node.write(epsilon_per_study=1.5)
    node.config.write_text(node.config.read_text() + 'columns = { text = "report" }\n')
    summary = review_study(node.config, node.study(privacy={"epsilon": 1.0})).summary
    assert summary.columns == ("report", "label") and not summary.objections
    assert "It reads the columns report, label. " in summary.in_words
    assert "One study may spend 1.5." in summary.in_words
    refused = review_study(node.config, node.study(privacy={"epsilon": 1.6})).summary
    assert refused.objections == ("epsilon 1.6 is above what one study may spend, 1.5",)


@pytest.mark.parametrize(
    "evaluation", [{"epsilon": 1.0}, {"epsilon": 1.0, "subgroup": {"column": "sex", "values": ["f", "m"]}}, None]
)
def test_contents_that_an_evaluation_counts_several_times_are_told(node: Node, evaluation: Any) -> None:
    held_out = [f"good word{i},{label},{sex}" for i in range(9) for label in ("no", "yes") for sex in ("f", "m")]
    node.data.write_text("text,label,sex\n" + "\n".join(held_out * 2) + "\n")
    node.write(holdout=1 - 1e-9, readable_columns=["text", "label", "sex"])
    sections = {} if evaluation is None else {"evaluation": evaluation}
    reviewed = review_study(node.config, node.study(**sections))
    assert reviewed.summary.records.train == 0
    times = 1 if evaluation is None else 4 if "subgroup" in evaluation else 2
    assert reviewed.summary.records.most_alike == times
    assert (f"epsilon counts up to {times} times" in reviewed.summary.in_words) == (times > 1)


def test_copies_are_one_record_and_contents_under_several_labels_are_told(node: Node) -> None:
    rows = ["good word1,yes"] * 5 + ["bad word2,no", "bad word2,yes", "bad word2,no", "bad word2,perhaps"]
    rows += [f"bad word{i},no" for i in range(10, 20)]
    node.data.write_text("text,label\n" + "\n".join(rows) + "\n")
    node.write(holdout=0.0)
    summary = review_study(node.config, node.study()).summary
    facts = summary.records
    assert (facts.rows, facts.train, facts.units) == (19, 14, 14)
    assert (facts.copies, facts.dropped, facts.most_alike) == (5, 5, 2)
    assert "5 copies of other records were left out" in summary.in_words
    assert "up to 2 records hold one content" in summary.in_words and "epsilon counts up to 2 times" in summary.in_words


def test_a_study_that_its_base_model_cannot_carry_out_is_not_approved(node: Node) -> None:
    with pytest.raises(SettingsError, match=r"Expected task.max_length of at most 64 for this base model, got 65"):
        node.approve(node.study(task={"max_length": 65}))
    assert node.rows() == []


def test_weighing_does_not_hold_the_ledger(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    import client.vault.records.snapshot as module

    honest, heights = module.take_snapshot, list[int]()

    def looking(*arguments: Any, **named: Any) -> Any:
        with Ledger(
            open_node(node.config).folders.ledger, second_copy=open_node(node.config).folders.second_copy
        ) as ledger:
            heights.append(ledger.height)
        return honest(*arguments, **named)

    monkeypatch.setattr(module, "take_snapshot", looking)
    node.approve(node.study())
    assert heights == [0] and node.rows() == ["register", "approve"]


def test_what_was_weighed_is_weighed_again_before_it_is_entered(node: Node) -> None:
    study = node.study(privacy={"epsilon": 2.5})
    reviewed = review_study(node.config, study)
    node.approve(study, "r-other")
    with pytest.raises(BudgetError, match="brings what is spent or earmarked to"):
        enter_approval(node.config, reviewed, "r-1")
    assert node.rows() == ["register", "approve"]


def test_without_the_record_index_nothing_new_is_approved_and_what_was_approved_goes_on(node: Node) -> None:
    study = node.study(privacy={"epsilon": 1.0})
    node.approve(study)
    open_node(node.config).folders.records[0].unlink()
    with pytest.raises(LedgerError, match="Expected the record index"):
        review_study(node.config, study)
    with pytest.raises(LedgerError, match="Expected the record index"):
        node.register()
    assert NodeVault(node.config).train(task(study)).status is Status.TRAINED


def test_rows_of_one_document_share_a_side_and_the_column_is_fixed_at_registration(node: Node) -> None:
    rows = [f"good word{i},{'yes' if i % 2 else 'no'},doc {i % 60}" for i in range(120)]
    rows += [f"good word{i},no,doc {(i + 1) % 60}" for i in range(60)] + ["word200,no,", "word201,yes, "]
    node.data.write_text("text,label,doc\n" + "\n".join(rows) + "\n")
    node.write(split_by="doc", holdout=0.3)
    study = node.study()
    reviewed = review_study(node.config, study)
    facts = reviewed.summary.records
    assert facts.train and facts.holdout and "2 rows name no doc and are not used." in facts.problems
    assert any("their content is trained on under another doc" in problem for problem in facts.problems)
    assert facts.units == facts.train, "each row is a record of its own"
    node.approve(study)
    with open_node(node.config).open_ledger() as ledger:
        assert ledger.state.terms["ward"].split_by == "doc"
    node.write(holdout=0.3)
    with pytest.raises(PolicyRefusal, match="registered with split_by = doc, node"):
        node.register()


def test_a_dataset_without_a_column_to_split_by_is_entered_as_before(node: Node) -> None:
    node.register()
    with open_node(node.config).open_ledger() as ledger:
        (row,) = rows_of(ledger)
    assert "split_by" not in row and row["holdout"] == 0.1


def test_shared_noise_is_refused_without_a_second_limit_and_shown_with_what_all_others_could_see(node: Node) -> None:
    federation = {"rounds": 6, "quorum": 3, "secure_sum": "shared", "typical_size": 50}
    study = node.study(federation=federation, training={"local_steps": 1}, privacy={"epsilon": 1.0})
    refused = review_study(node.config, study).summary
    assert any("epsilon_if_all_collude does not say" in reason for reason in refused.objections)
    assert NodeVault(node.config).offer(offer(study)).status is Status.REFUSED_POLICY
    node.write(epsilon_if_all_collude="no-limit")
    summary = review_study(node.config, study).summary
    assert not summary.objections and len(summary.shares_noise) == 5
    assert "The nodes share one noise, and this node adds a part of it." in summary.in_words
    assert "With 10 nodes, of which 8 have to be in every sum, epsilon" in summary.in_words
    node.approve(study)
    with open_node(node.config).open_ledger() as ledger:
        assert ledger.state.limits["ward"].if_all_collude == float("inf")
    assert node.rows()[-1] == "approve"
