"""A server's report of one run: what came, from whom, with the receipts that it was given."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.link.membership import _request
from client.operator.receipts import statement
from client.vault.ledger.ledger import Ledger
from server.certificate_authority import issue_node
from server.cli.app import cli
from server.export.run_report import run_report, wilson
from server.run_store.store import Store
from server.settings import Home
from shared.errors import PeerError
from shared.evidence.receipt import sign
from shared.evidence.signed_report import FORMS, verify
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import schedule_of
from shared.private_evaluation.estimates import Estimate
from shared.study.declaration import Study
from tests.support.ledgers import register
from tests.support.reports import EVALUATED, Federation
from tests.support.rounds import RECORDS

NODES = {11: "st-mary", 12: "north", 13: "south"}


class Run:
    """A server's folder with one run of three rounds."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.home, self.study = Home(folder / "server"), study
        done = CliRunner().invoke(cli, ["init", "--host", "server.example.org", "--home", str(self.home.folder)])
        assert done.exit_code == 0, done.output
        with Store(self.home.database()) as store:
            self.name = store.create_run(study).id
            for number, record in enumerate(RECORDS, start=1):
                evaluation = {"accuracy": 0.5 + number / 10, "records": 400}
                store.record_round(self.name, record.as_dict(), evaluation)
                store.record_event("asked", {"round": number, "nodes": record.asked}, run=self.name)
            for number, name in NODES.items():
                store.invite(name, name, datetime.now(UTC) + timedelta(days=1))
                store.enrol(name, name, number, datetime.now(UTC))
            store.set_state(self.name, "stopped")

    def command(self, *arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--home", str(self.home.folder)])
        assert done.exit_code == 0, f"{done.output}{done.exception}"
        return done.stdout


@pytest.fixture
def run(tmp_path: Path) -> Run:
    study = {
        "study": {"name": "reports of a ward", "purpose": "To find what to read first."},
        "model": {"source": "bundled:minilm", "fingerprint": "f" * 64},
        "task": {"kind": "sequence-classification", "labels": ["no", "yes"]},
        "federation": {"rounds": 3},
    }
    return Run(tmp_path, Study.model_validate(study))


def receipt(run: Run, folder: Path, *, name: str = "", study_sha256: str = "") -> str:
    """What a node that this federation certified hands over."""
    node = Federation(folder / "elsewhere")
    certificate = issue_node(run.home.keys, "st-mary", _request(node.node_key, "st-mary").encode()).decode()
    schedule = schedule_of(run.study)
    with Ledger(folder / "ledger.db", second_copy=folder / "second" / "head.json") as ledger:
        register(ledger, "ward", epsilon=30.0)
        per_round = schedule.release(run.study.training.local_steps)
        sha256 = study_sha256 or run.study.sha256
        ledger.approve("ward", name or run.name, study_sha256=sha256, rounds=3, per_round=per_round)
        ledger.reserve(name or run.name, 1)
        stated = statement(ledger, name or run.name)
    return sign(stated, node.node_key, certificate).as_json()


def test_a_report_counts_what_came_and_what_was_paid_at_most(run: Run) -> None:
    with Store(run.home.database()) as store:
        report = run_report(store, store.run(run.name), run.home.runs)
    houses = {house.name: house for house in report.houses}
    assert {name: house.rounds for name, house in houses.items()} == {"north": 2, "south": 1, "st-mary": 3}
    assert {name: house.released for name, house in houses.items()} == {"north": 1, "south": 1, "st-mary": 2}
    assert report.left is not None and (report.left.updates, report.left.bytes) == (4, 400)
    schedule, steps = schedule_of(run.study), run.study.training.local_steps
    assert report.meaning.epsilon == pytest.approx(epsilon_rdp([schedule.release(3 * steps)], run.study.privacy.delta))
    incidents = [(one.round, one.what, one.who) for one in report.incidents]
    assert (2, "rejected", "south") in incidents and (2, "missing", "north") in incidents
    assert (3, "lost", "st-mary") in incidents and (3, "below quorum", "") in incidents
    answer = report.answer
    assert answer is not None and answer.quality.value == pytest.approx(0.8) and answer.counted == 400
    assert report.run.state == "stopped"


def test_a_report_holds_what_the_sites_counted(run: Run, tmp_path: Path) -> None:
    with Store(run.home.database()) as store:
        bare = run_report(store, store.run(run.name), tmp_path)
        store.evaluations.finish(run.name, 2, EVALUATED.model_dump(mode="json"))
        nobody = EVALUATED.model_copy(update={"number": 3, "sites": (), "estimates": ()})
        store.evaluations.finish(run.name, 3, nobody.model_dump(mode="json"))
        report = run_report(store, store.run(run.name), tmp_path)
    assert "evaluation" not in bare.model_dump()["further"], "as before there was any"
    assert report.further.evaluation == EVALUATED, "the last one that somebody answered"
    assert report.answer is not None and report.answer.measured_on == "server", "the operator's own table comes first"
    shown = run.command("show", run.name)
    assert "worst site (south)" in shown and "east (refused_budget)" in shown and "not shown" in shown
    assert json.loads(run.command("show", run.name, "--json"))["evaluations"][0]["sigma"] == 3.73


def test_without_a_table_of_the_operator_the_answer_is_what_the_sites_counted(run: Run, tmp_path: Path) -> None:
    with Store(run.home.database()) as store:
        other = store.create_run(run.study).id
        store.record_round(other, RECORDS[0].as_dict(), None)
        best = Estimate(
            scope="all sites", measure="accuracy", value=0.8, low=0.7, high=0.9, low_here=0.75, high_here=0.85
        )
        store.evaluations.finish(other, 3, EVALUATED.model_copy(update={"estimates": (best,)}).model_dump(mode="json"))
        answer = run_report(store, store.run(other), tmp_path).answer
    assert answer is not None and answer.measured_on == "counts"
    assert (answer.quality.value, answer.quality.low, answer.quality.high) == (0.8, 0.7, 0.9)


def test_an_interval_is_wilsons() -> None:
    found = wilson(0.8, 400)  # as statsmodels' proportion_confint(320, 400, method="wilson") gives it
    assert (found.low, found.high) == pytest.approx((0.75806, 0.83621), abs=1e-4)


def test_the_command_writes_three_files_that_verify_accepts_and_holds_receipts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text(receipt(run, tmp_path))
    given = ["--receipt", str(tmp_path / "receipt.json"), "--out", str(tmp_path / "pilot")]
    assert len(run.command("report", run.name, *given).splitlines()) == 3
    for form in FORMS:
        file = tmp_path / f"pilot.{form}"
        said = run.command("verify", str(file))
        assert "Valid. Report of a server" in said and "It is server.example.org's." in said
        authority = (run.home.keys / "authority.crt").read_bytes()
        report = verify(file.read_bytes(), authority).report
        (house,) = (house for house in report.houses if house.name == "st-mary")
        assert house.receipt_rounds == 1 and house.receipt_epsilon is not None and len(house.receipt_key) == 64
    plain = json.loads(run.command("report", run.name, "--json"))
    assert plain["report"]["run"]["name"] == run.name


def test_a_receipt_of_another_run_or_of_another_federation_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with Store(run.home.database()) as store:
        authority = (run.home.keys / "authority.crt").read_bytes()
        chosen = store.run(run.name)
        for wrong in (receipt(run, tmp_path / "one", name="r-other"), "{}"):
            with pytest.raises(PeerError, match=r"Expected (receipts of|a receipt)"):
                run_report(store, chosen, tmp_path, receipts=[wrong], authority=authority)
        theirs = receipt(run, tmp_path / "other")
        with pytest.raises(PeerError, match="this authority certified"):
            run_report(store, chosen, tmp_path, receipts=[theirs], authority=Federation(tmp_path / "third").authority)
        strange = store.run(run.name)
        with pytest.raises(PeerError, match="Expected receipts of r-x"):
            run_report(store, replace(strange, id="r-x"), tmp_path, receipts=[theirs], authority=authority)
