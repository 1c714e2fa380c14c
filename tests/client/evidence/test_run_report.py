"""A node's report of one run: what the ledger says, whether it ended early, and after a withdrawal."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from client.evidence.history import SENTENCES, history, lines, sentence
from client.evidence.run_report import run_report
from client.vault.ledger.ledger import Ledger
from client.vault.review.node_files import NodeFiles, open_node
from shared.errors import SettingsError
from shared.evidence.signed_report import verify, written
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import register
from tests.support.paths import ROOT
from tests.support.reports import Federation

RELEASE = SubsampledGaussian(1.5, 0.05, 6)
NOTHING: Callable[[Ledger], None] = lambda _ledger: None  # noqa: E731


@pytest.fixture
def node(tmp_path: Path) -> NodeFiles:
    """A node with three rounds paid of a run of five: one released, one failed, one lost."""
    config = tmp_path / "node.toml"
    policy = f'source = "ward.csv"\nepsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{"a" * 64}"]\n'
    config.write_text(f"[datasets.secret-ward]\n{policy}")
    opened = open_node(config)
    with opened.open_ledger() as ledger:
        register(ledger, "secret-ward", epsilon=3.0, delta=1e-5)
        ledger.approve("secret-ward", "r-0", study_sha256="o" * 64, rounds=1, per_round=RELEASE)
        ledger.reserve("r-0", 1)
        ledger.commit("r-0", 1, b"earlier")
        words = {"by": "Dr. Who", "note": "vote 7"}
        ledger.approve("secret-ward", "r-1", study_sha256="s" * 64, rounds=5, per_round=RELEASE, words=words)
        for number in (1, 2, 4):
            ledger.reserve("r-1", number)
        ledger.commit("r-1", 1, b"released")
        ledger.fail("r-1", 2)
    return opened


def after(node: NodeFiles, act: Callable[[Ledger], None]) -> NodeFiles:
    with node.open_ledger() as ledger:
        act(ledger)
    return node


def test_a_report_says_what_left_what_it_cost_and_who_decided(node: NodeFiles) -> None:
    report = run_report(node, "r-1", issuer="st-mary")
    (house,), budget = report.houses, report.budget
    assert (house.name, house.rounds, house.released, house.bytes_each) == ("st-mary", 3, 1, len(b"released"))
    assert [release.round for release in house.releases] == [1]
    assert report.meaning.epsilon == pytest.approx(epsilon_rdp([SubsampledGaussian(1.5, 0.05, 18)], 1e-5))
    assert budget is not None and budget.before == pytest.approx(epsilon_rdp([RELEASE], 1e-5))
    with node.open_ledger() as ledger:
        assert budget.before + budget.run == pytest.approx(ledger.state.spent("secret-ward"))
        assert report.ledger is not None and report.ledger.height == ledger.height
    assert [(one.answer, one.by, one.note) for one in report.decisions] == [("yes", "Dr. Who", "vote 7")]
    assert [(one.round, one.what) for one in report.incidents] == [(2, "failed"), (4, "pending")]
    assert report.run.state == "open" and report.policy is not None and report.policy.approval == "ask"
    assert run_report(node, None).run.name == "r-1", "the one approved last"


@pytest.mark.parametrize(
    ("act", "state", "silent"),
    [
        (lambda ledger: ledger.close_run("r-1"), "ended early", "lost"),
        (lambda ledger: ledger.withdraw("secret-ward"), "withdrawn", "lost"),
    ],
    ids=["ended early", "withdrawn"],
)
def test_a_run_that_ended_otherwise_is_reported_in_all_three_files(
    node: NodeFiles, act: Callable[[Ledger], None], state: str, silent: str, tmp_path: Path
) -> None:
    federation = Federation(tmp_path / "federation")
    report = run_report(after(node, act), "r-1", issuer="st-mary")
    assert report.run.state == state and report.incidents[-1].what == silent
    assert report.budget is not None and (report.budget.left == 0) == (state == "withdrawn")
    made = federation.signed(report)
    for form in ("html", "pdf", "json"):
        content = written(made, form, federation.node_key)  # type: ignore[arg-type]
        assert verify(content, federation.authority).report == report
        assert b"secret-ward" not in content and "secret-ward" not in made.as_json(), "names no dataset"


def test_a_run_that_nothing_left_of_has_epsilon_zero(node: NodeFiles) -> None:
    act = lambda ledger: ledger.approve("secret-ward", "r-2", study_sha256="t" * 64, rounds=1, per_round=RELEASE)  # noqa: E731
    report = run_report(after(node, act), "r-2")
    assert report.meaning.epsilon == 0 and report.left is not None and report.left.updates == 0


def test_an_unknown_run_is_one_clear_sentence(node: NodeFiles, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run of the ledger \(r-0, r-1\), got 'r-9'"):
        run_report(node, "r-9")
    (tmp_path / "empty").mkdir()
    shutil.copy(node.config, tmp_path / "empty")
    with pytest.raises(SettingsError, match=r"\(none\)"):
        run_report(open_node(tmp_path / "empty" / "node.toml"), None)


def test_history_tells_every_row_in_order(node: NodeFiles) -> None:
    rows = history(node)
    with node.open_ledger() as ledger:
        assert [row["row"] for row in rows] == list(range(1, ledger.height + 1))
    told = "\n".join(lines(rows))
    for words in (
        "secret-ward was registered: at most epsilon 3",
        'by Dr. Who: 5 rounds of study ssssssssssssssss ("vote 7")',
    ):
        assert words in told
    assert "Round 1 of r-1 left this house" in told and "Round 2 of r-1 failed" in told


@pytest.mark.parametrize("version", ["ledger-v1.db", "ledger-v2.db"])
def test_history_tells_ledgers_of_every_age(node: NodeFiles, version: str) -> None:
    node.folders.ledger.unlink()
    shutil.copy(ROOT / "tests" / "client" / "vault" / "ledger" / "golden" / version, node.folders.ledger)
    rows = history(node)
    assert len(rows) > 3 and all(row["sentence"].endswith((".", "…")) for row in rows)


def test_every_kind_of_row_has_a_sentence_and_texts_stay_on_their_line() -> None:
    code = (ROOT / "client" / "vault" / "ledger" / "state.py").read_text()
    kinds = code.split("        {\n", 1)[1].split("}[row", 1)[0]
    assert {line.split('"')[1] for line in kinds.strip().splitlines()} == set(SENTENCES)
    row = {"kind": "reject", "run": "r-1", "by": "me\nRound 9 left", "note": "\x1b[31mno"}
    assert "\n" not in sentence(row) and "\x1b" not in sentence(row)
