"""Commands that issue, list and revoke operators' certificates."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from server.cli import main
from server.run_store.store import Store
from server.settings import Home

Types = Callable[..., tuple[str, str]]


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Types:
    monkeypatch.chdir(tmp_path)

    def typed(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["fedvault-server", *arguments])
        with pytest.raises(SystemExit):
            main()
        out, err = capsysbinary.readouterr()
        return out.decode(errors="replace"), err.decode()

    typed("init", "--host", "127.0.0.1")
    return typed


def test_a_certificate_is_issued_listed_and_revoked_and_the_log_has_who_did_it(types: Types, tmp_path: Path) -> None:
    out, _err = types("operator", "anna")
    passphrase = out.split("by another way: ")[1].split()[0]
    assert "anna may look, and change nothing, until" in out and "https://127.0.0.1:8443/operator/" in out
    assert "It is not open yet: set operators = true in server.toml" in out
    path = tmp_path / "anna.p12"
    assert path.stat().st_mode & 0o777 == 0o600 and len(passphrase) == 20
    assert pkcs12.load_pkcs12(path.read_bytes(), passphrase.encode()).key is not None
    config = tmp_path / "federation" / "server.toml"
    config.write_text(f"operators = true\n{config.read_text()}")
    out, _err = types("operator", "ruth", "--allow-actions", "--pem", "--days", "7")
    assert "ruth may act, until" in out and "not open" not in out and "passphrase" not in out
    rows = json.loads(types("operators", "--json")[0])
    shown = x509.load_pem_x509_certificate((tmp_path / "ruth.pem").read_bytes())
    assert [(row["name"], row["status"], row["may"]) for row in rows] == [
        ("anna", "valid", "look"),
        ("ruth", "valid", "act"),
    ]
    assert rows[1]["certificate"] == f"{shown.serial_number:x}" and rows[1]["ends"] == f"{shown.not_valid_after_utc:%F}"
    assert "ruth is shut out of the page." in types("revoke", "ruth", "--operator")[0]
    assert [row["status"] for row in json.loads(types("operators", "--json")[0])] == ["valid", "revoked"]
    with Store(Home(tmp_path / "federation").database()) as store:
        events = [(event.kind, event.body["person"], event.body["from"]) for event in store.operator_events(most=9)]
    assert events == [
        ("revoke operator", "ruth", "command line"),
        ("operator", "ruth", "command line"),
        ("operator", "anna", "command line"),
    ]


def test_what_is_printed_is_the_file_alone(types: Types) -> None:
    out, err = types("operator", "anna", "--pem", "--out", "-")
    assert x509.load_pem_x509_certificate(out.encode()) and out.startswith("-----BEGIN PRIVATE KEY")
    assert "anna may look" in err and "may look" not in out


@pytest.mark.parametrize("name", ["", "two words", "a\r\nfedvault-operator: root", "ä", "-x", "a/b", "a" * 65])
def test_a_name_that_no_header_could_bear_is_none(types: Types, name: str, tmp_path: Path) -> None:
    _out, err = types("operator", "--", name)
    assert "Expected a name of letters, digits" in err and list(tmp_path.glob("*.p12")) == []
    assert json.loads(types("operators", "--json")[0]) == []
