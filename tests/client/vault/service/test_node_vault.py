"""One node's vault over its whole life: offers, approvals, rounds, hours, budgets, local metrics."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import Limit
from client.vault.records.approved_runs import ApprovedRuns
from client.vault.review.node_files import open_node
from client.vault.review.offers import LARGEST_STUDY_BYTES, MOST_OFFERS, STALE_S, Offers
from client.vault.service.node_vault import NodeVault
from client.vault_api.messages import write_reply
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.errors import BudgetError, DataError, LedgerError, PeerError, PolicyRefusal, SettingsError
from shared.protocol.messages import LedgerPosition, Status, StudyOffer, TrainTask
from shared.study.declaration import Study
from shared.study.sections import Model
from tests.support.ledgers import rows_of
from tests.support.operators import approve_study, enter_approval, register_dataset, reject_run, review_study

Studies = Callable[..., Study]
TUESDAY_NOON = datetime(2026, 11, 24, 12, 0)


class Node:
    """A node's folder with one dataset, and what its operator may change."""

    def __init__(self, folder: Path, tiny_bert: Path, make_study: Studies) -> None:
        self.folder, self._tiny_bert, self._make_study = folder, tiny_bert, make_study
        self.fingerprint = find(Model(source=str(tiny_bert))).fingerprint
        self.config, self.data = folder / "node.toml", folder / "ward.csv"
        rows = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
        self.data.write_text("text,label\n" + "\n".join(rows) + "\n")
        self.write()

    def write(self, node: str = "", **changes: Any) -> None:
        policy = {"epsilon": 3.0, "delta": 1e-5, "declared_size": 54, "models": [self.fingerprint]} | changes
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in policy.items())
        models = f'models = "{self._tiny_bert.parent}"'
        self.config.write_text(f'[node]\n{models}\n{node}\n[datasets.ward]\nsource = "ward.csv"\n{lines}\n')

    def study(self, **sections: Any) -> Study:
        model = {"source": str(self._tiny_bert), "fingerprint": self.fingerprint}
        usual = {"model": model, "adapter": {"layers": "last:1"}, "federation": {"quorum": 3}}
        return self._make_study(**usual | sections)

    def approve(self, study: Study, run: str = "r-1") -> None:
        approve_study(self.config, study, run)

    def register(self) -> None:
        register_dataset(self.config)

    def rows(self) -> list[str]:
        with open_node(self.config).open_ledger() as ledger:
            return [row["kind"] for row in rows_of(ledger)]


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> Node:
    return Node(tmp_path, tiny_bert, make_study)


def offer(study: Study, run: str = "r-1") -> StudyOffer:
    return StudyOffer(run, study.canonical_json())


def task(study: Study, number: int = 1, run: str = "r-1") -> TrainTask:
    return TrainTask(study.sha256, run, number, np.zeros(layout_of(study).length, np.float32))


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


@pytest.mark.parametrize(
    ("changes", "sections", "status"),
    [
        ({"smallest_cohort": 4}, {}, Status.REFUSED_POLICY),
        ({"largest_update_bytes": 4}, {}, Status.REFUSED_POLICY),
        ({"unit": "patient", "unit_column": "label"}, {}, Status.REFUSED_POLICY),
        ({"models": ["0" * 64]}, {}, Status.REFUSED_POLICY),
        ({}, {"model": {"source": "bundled:minilm", "fingerprint": "1" * 64}}, Status.REFUSED_MODEL),
        ({"epsilon": 1.0}, {"privacy": {"epsilon": 1.0}}, Status.AWAITING_APPROVAL),
        ({"epsilon": 1.0}, {"privacy": {"epsilon": 1.5}}, Status.REFUSED_POLICY),
    ],
)
def test_an_offer_outside_the_policy_is_refused_for_a_public_reason(
    node: Node, changes: dict[str, Any], sections: dict[str, Any], status: Status
) -> None:
    node.write(**changes)
    assert NodeVault(node.config).offer(offer(node.study(**sections))).status is status
    assert node.rows() == []


def test_within_policy_approves_what_the_policy_allows_and_no_more_than_the_budget(node: Node) -> None:
    node.write(approval="within-policy")
    node.register()
    node_vault = NodeVault(node.config)
    assert node_vault.offer(offer(node.study(privacy={"epsilon": 2.0}))).status is Status.APPROVED
    assert node.rows() == ["register", "approve"]
    assert node_vault.offer(offer(node.study(privacy={"epsilon": 2.9}), "r-2")).status is Status.REFUSED_BUDGET
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
    other(node, "clinic", "clinic word")
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
    assert node.rows()[-2:] == ["reserve", "commit"]


def other(node: Node, name: str, text: str, **changes: Any) -> None:
    """Register another dataset with one record."""
    usual = node.config.read_text()
    node.write(**changes)
    (node.folder / f"{name}.csv").write_text(f"text,label\n{text},no\n")
    node.config.write_text(node.config.read_text().replace("ward", name))
    register_dataset(node.config, name)
    node.config.write_text(usual)


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


def test_a_row_of_the_approval_is_one_and_of_the_records_one_whatever_they_share(node: Node) -> None:
    heights = set()
    for text in ("apart", "bad word0"):
        other(node, text.replace(" ", "-"), text)
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


def test_a_stricter_delta_of_today_makes_what_is_spent_more(node: Node) -> None:
    study, node_vault = node.study(privacy={"delta": 1e-7}), NodeVault(node.config)
    node.write(delta=1e-4)
    node.approve(study)
    assert node_vault.train(task(study)).status is Status.TRAINED
    with open_node(node.config).open_ledger() as ledger:
        per_round = ledger.state.runs["r-1"].per_round
        budgets = [ledger.state.budget("ward", declared=Limit(3.0, d), earmarked=False) for d in (1e-4, 1e-7)]
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


def test_local_metrics_stay_in_a_local_file(node: Node) -> None:
    study, node_vault = node.study(), NodeVault(node.config)
    node.write(holdout=0.3)
    node.approve(study)
    node_vault.train(task(study))
    node_vault.measure(task(study), lambda: None)
    (line,) = map(json.loads, open_node(node.config).folders.metrics.read_text().splitlines())
    assert (line["run"], line["round"]) == ("r-1", 1) and 0 <= line["accuracy"] <= 1 and line["loss"] > 0
    assert line["train_seconds"] > 0 and 0 <= line["clip_fraction"] <= 1
    assert open_node(node.config).folders.metrics.stat().st_mode & 0o077 == 0
    node.write(node="local_metrics = false")
    node_vault.measure(task(study), lambda: None)
    assert len(open_node(node.config).folders.metrics.read_text().splitlines()) == 1


def test_two_datasets_are_told_apart_by_a_person(node: Node) -> None:
    node.write(approval="within-policy")
    node.register()
    section = node.config.read_text().split("[datasets.ward]")[1]
    node.config.write_text(node.config.read_text() + "[datasets.clinic]" + section)
    assert NodeVault(node.config).offer(offer(node.study())).status is Status.AWAITING_APPROVAL


def test_what_the_server_shows_no_more_makes_room_and_what_was_rejected_stays_so(
    tmp_path: Path, make_study: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.vault.review.offers.MOST_OFFERS", 3)
    offers, study, folder = Offers(tmp_path / "offers"), make_study(), tmp_path / "offers"
    for run in ("no", "old", "older", "again"):
        offers.receive(offer(study, run))
        if run == "no":
            offers.reject("no")
        for path in folder.iterdir():
            age = path.stat().st_mtime - STALE_S / 3
            os.utime(path, (age, age))
    offers.receive(offer(study, "old"))  # shown again: it is on offer still
    with pytest.raises(PeerError, match="one more"):
        offers.receive(offer(study, "new"))
    for path in folder.iterdir():
        age = path.stat().st_mtime - STALE_S
        os.utime(path, (age, age))
    offers.receive(offer(study, "new"))
    assert [offered.run for offered in offers.all()] == ["again", "new", "no", "old"]
    with pytest.raises(PolicyRefusal, match="was rejected"):
        offers.check_open("no")


def test_offers_are_bounded_and_one_run_has_one_study(tmp_path: Path, make_study: Studies) -> None:
    offers = Offers(tmp_path / "offers")
    study = make_study()
    assert offers.receive(offer(study)).run == "r-1" and offers.find("r").study == study
    with pytest.raises(PeerError, match="another one"):
        offers.receive(offer(make_study(training={"local_steps": 7})))
    for wrong in (
        StudyOffer("r-2", "{}"),
        StudyOffer("r-2", "[" * 100_000),
        StudyOffer("r-2", " " * (LARGEST_STUDY_BYTES + 1)),
        StudyOffer("", study.canonical_json()),
        StudyOffer("r" * 101, study.canonical_json()),
    ):
        with pytest.raises(PeerError, match="Expected"):
            offers.receive(wrong)
    for number in range(MOST_OFFERS - 1):
        offers.receive(offer(study, f"../{number}"))
    with pytest.raises(PeerError, match="one more"):
        offers.receive(offer(study, "one-more"))
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "offers"}, "names do not become paths"
    with pytest.raises(SettingsError, match="one study on offer"):
        offers.find("../")


def test_a_second_run_asks_again_and_a_full_budget_says_no(node: Node) -> None:
    study = node.study(privacy={"epsilon": 2.5})
    node.approve(study)
    assert NodeVault(node.config).offer(offer(study, "r-2")).status is Status.REFUSED_BUDGET
    with pytest.raises(BudgetError, match="brings what is spent or earmarked to"):
        node.approve(study, "r-2")
