"""An auditor's page, typed as it stands on a receipt that a node signed: it needs nothing of FedVault."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from client.link.membership import _made_key, _request
from client.operator.receipts import statement
from client.vault.ledger.ledger import Ledger
from server.certificate_authority import create, issue_node
from shared.evidence.receipt import Receipt, sign, signer
from shared.privacy.releases import SubsampledDiscreteGaussian
from tests.support.documents import blocks
from tests.support.ledgers import register

OK = ["Verified OK", "node.crt: OK", "the certificate is of this key"]


@pytest.fixture
def receipt(tmp_path: Path) -> Receipt:
    """Of three rounds, with the federation's authority beside it."""
    create(tmp_path / "keys", "test federation")
    (tmp_path / "authority.crt").write_bytes((tmp_path / "keys" / "authority.crt").read_bytes())
    key = _made_key(tmp_path / "node.key")
    certificate = issue_node(tmp_path / "keys", "st-märy", _request(key, "st-märy").encode()).decode()
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "second" / "head.json") as ledger:
        register(ledger, "ward", epsilon=3.0)
        release = SubsampledDiscreteGaussian(1.5, 0.05, 6)
        ledger.approve("ward", "r-ä", study_sha256="5" * 64, rounds=5, per_round=release)
        for number in (1, 2, 3):
            ledger.reserve("r-ä", number)
        stated = statement(ledger, "r-ä")
    signed = sign(stated, key, certificate)
    (tmp_path / "receipt.json").write_text(signed.as_json())
    return signed


def audited(folder: Path) -> str:
    """What the page's commands print."""
    done = subprocess.run(
        ["/bin/bash", "-c", "".join(blocks("client/AUDITING.md", "bash"))],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_a_receipt_is_checked_with_openssl_and_sha256sum(receipt: Receipt, tmp_path: Path) -> None:
    printed = audited(tmp_path)
    assert [line for line in OK if line not in printed] == []
    assert f"{signer(receipt).fingerprint}  -" in printed, "the fingerprint that `verify` prints"
    assert "notBefore=" in printed and "notAfter=" in printed


def test_a_changed_receipt_is_noticed(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text(replace(receipt, epsilon=0.01).as_json())
    assert "Verified OK" not in audited(tmp_path)


def test_another_authority_or_another_key_is_noticed(receipt: Receipt, tmp_path: Path) -> None:
    create(tmp_path / "other", "another federation")
    (tmp_path / "authority.crt").write_bytes((tmp_path / "other" / "authority.crt").read_bytes())
    assert "node.crt: OK" not in audited(tmp_path)
    borrowed = sign(receipt, ec.generate_private_key(ec.SECP384R1()), receipt.certificate)
    (tmp_path / "receipt.json").write_text(borrowed.as_json())
    printed = audited(tmp_path)
    assert "Verified OK" in printed and "the certificate is of this key" not in printed


def test_epsilon_follows_from_the_release_by_another_accountant(receipt: Receipt) -> None:
    release = json.loads(receipt.as_json())["release"]
    event = PoissonSampledDpEvent(release["sampling_rate"], GaussianDpEvent(release["noise_multiplier"]))
    accountant = RdpAccountant()
    accountant.compose(event, release["count"])
    assert receipt.epsilon == pytest.approx(accountant.get_epsilon(receipt.delta), rel=5e-3)
