"""`report`, `history`, `sign` and `verify` of a report, as an operator types them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from client.cli import main
from client.vault.review.node_files import open_node
from shared.evidence.signed_report import FORMS, sign, written
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import register
from tests.support.reports import Federation, server_report

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedvault-node", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A node that has joined, with one round of one run released."""
    policy = f'source = "ward.csv"\nepsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{"a" * 64}"]\n'
    (tmp_path / "node.toml").write_text(f"[datasets.ward]\n{policy}")
    certified = Federation(tmp_path / "federation")
    node = open_node(tmp_path / "node.toml")
    link = node.folders.link
    link.mkdir(parents=True, exist_ok=True)
    (tmp_path / "federation" / "node.key").rename(link / "node.key")
    (link / "node.crt").write_text(certified.node_certificate)
    (link / "authority.crt").write_bytes(certified.authority)
    facts = {"name": "st-mary", "server": "server.example.org:8443", "node_id": 7}
    (link / "membership.json").write_text(json.dumps(facts))
    with node.open_ledger() as ledger:
        register(ledger, "ward", epsilon=3.0)
        release = SubsampledGaussian(1.5, 0.05, 6)
        ledger.approve("ward", "r-1", study_sha256="s" * 64, rounds=2, per_round=release)
        ledger.reserve("r-1", 1)
        ledger.commit("r-1", 1, b"released")
    return certified


def test_a_report_is_written_checked_and_refused_once_a_byte_is_changed(
    node: Command, federation: Federation, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.crt"
    authority.write_bytes(federation.authority)
    code, out, _ = node("report")
    assert code == 0 and out.split() == [f"report-r-1.{form}" for form in FORMS]
    for form in FORMS:
        code, out, _ = node("verify", f"report-r-1.{form}", "--authority", str(authority))
        assert code == 0 and "Valid. Report of a node" in out and "It is st-mary's." in out
        content = bytearray((tmp_path / f"report-r-1.{form}").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / f"changed.{form}").write_bytes(content)
        code, _, error = node("verify", f"changed.{form}", "--authority", str(authority))
        assert code != 0 and error.startswith("error: Expected")
    assert json.loads(node("report", "r-1", "--json")[1])["report"]["houses"][0]["name"] == "st-mary"
    code, _, error = node("report", "r-9")
    assert code == 2 and "Expected a run of the ledger (r-1), got 'r-9'." in error
    code, _, error = node("report", "--language", "fr")
    assert code == 2 and "Expected a language of en, de" in error


def test_a_report_may_be_signed_where_no_ledger_is(node: Command, federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "unsigned.json").write_text(node("report", "--unsigned")[1])
    code, _, error = node("verify", "unsigned.json")
    assert code != 0 and "nobody signed" in error
    code, out, _ = node("sign", "unsigned.json", "--out", "signed.pdf")
    assert code == 0 and out.split() == ["signed.pdf"]
    assert "Valid." in node("verify", "signed.pdf")[1]
    code, _, error = node("sign", "report.json")
    assert code == 2


def test_a_report_holds_how_often_the_servers_own_counts_the_node(
    node: Command, federation: Federation, tmp_path: Path
) -> None:
    key = serialization.load_pem_private_key(federation.server.key.read_bytes(), None)
    theirs = server_report()
    ours = theirs.houses[0].model_copy(update={"name": "st-mary", "rounds": 5})
    for name, report in (("with-us", theirs.model_copy(update={"houses": (ours,)})), ("without", theirs)):
        made = sign(report, key, federation.server.certificate.read_text())  # type: ignore[arg-type]
        (tmp_path / f"{name}.json").write_bytes(written(made, "json"))
    code, out, _ = node("report", "r-1", "--server-report", "with-us.json", "--json")
    assert code == 0 and json.loads(out)["report"]["server_rounds"] == 5
    code, _, error = node("report", "r-1", "--server-report", "without.json")
    assert code == 4 and "the server's report of 'r-1' with 'st-mary' in it" in error


def test_history_is_sentences_or_json(node: Command, federation: Federation) -> None:
    code, out, _ = node("history")
    assert code == 0 and "ward was registered" in out and "Round 1 of r-1 left this house" in out
    assert [row["kind"] for row in json.loads(node("history", "--json")[1])] == [
        "register",
        "approve",
        "reserve",
        "commit",
    ]
