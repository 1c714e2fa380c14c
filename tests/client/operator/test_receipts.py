"""Receipts: what an auditor checks."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.link.membership import _made_key, _request
from client.operator.receipts import statement
from client.vault.ledger.approval import take_roster
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import DatasetTerms, Evaluations, Limit, records_row, registration_row
from server.certificate_authority import create, issue_node
from shared.errors import PeerError, SettingsError
from shared.evidence.receipt import Receipt, read_statement, sign, signer, verify
from shared.evidence.signature import Signer
from shared.privacy.accounting import epsilon_if_colluding, epsilon_rdp
from shared.privacy.releases import LargestSide, NoisyCounts, SharedCounts, SharedGaussian, SubsampledGaussian
from shared.study.declaration import Study
from tests.support.ledgers import register

Studies = Callable[..., Study]
RELEASE = SubsampledGaussian(1.5, 0.05, 6)


def issue(ledger: Ledger, run: str, key: ec.EllipticCurvePrivateKey, certificate: str) -> Receipt:
    """A receipt, signed where the ledger is."""
    return sign(statement(ledger, run), key, certificate)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two rounds paid of a run of five."""
    opened = Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "second" / "head.json")
    register(opened, "secret-ward", epsilon=3.0, delta=1e-5)
    opened.approve("secret-ward", "r-1", study_sha256="s" * 64, rounds=5, per_round=RELEASE)
    opened.reserve("r-1", 1)
    opened.commit("r-1", 1, b"released")
    opened.reserve("r-1", 3)
    return opened


def test_a_receipt_says_what_was_paid_and_can_be_checked_by_anyone(ledger: Ledger) -> None:
    written = issue(ledger, "r-1", ec.generate_private_key(ec.SECP384R1()), "").as_json()
    found = verify(written)
    assert found.rounds_paid == (1, 3), "a round whose update was lost is paid for too"
    assert found.epsilon == pytest.approx(epsilon_rdp([SubsampledGaussian(1.5, 0.05, 12)], 1e-5))
    assert found.epsilon == pytest.approx(ledger.state.spent("secret-ward"))
    assert (found.ledger_height, found.ledger_head) == (ledger.height, ledger.head)
    assert "secret-ward" not in written
    with pytest.raises(SettingsError, match=r"run of the ledger \(r-1\)"):
        issue(ledger, "r-2", ec.generate_private_key(ec.SECP384R1()), "")
    ledger.close()


def test_a_receipt_may_be_signed_where_no_ledger_is(ledger: Ledger) -> None:
    written = statement(ledger, "r-1").as_json()
    ledger.close()
    signed = sign(read_statement(written), ec.generate_private_key(ec.SECP384R1()), "").as_json()
    assert verify(signed).rounds_paid == (1, 3)
    for wrong in (signed, written.replace('"epsilon": 0', '"epsilon": 1'), "{}", "no json", "[" * 100_000):
        with pytest.raises(PeerError):
            read_statement(wrong)
    with pytest.raises(PeerError):
        verify(written)


@pytest.mark.guarantee(
    "a receipt with one changed character, or with an epsilon that its noise does not give, is refused."
)
def test_a_changed_receipt_is_refused_character_by_character(ledger: Ledger) -> None:
    written = issue(ledger, "r-1", ec.generate_private_key(ec.SECP384R1()), "").as_json()
    ledger.close()
    compact = json.dumps(json.loads(written))
    for place, character in enumerate(compact):
        changed = compact[:place] + ("1" if character != "1" else "2") + compact[place + 1 :]
        if _same_meaning(compact, changed):
            continue
        with pytest.raises(PeerError):
            verify(changed)


def _same_meaning(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


@pytest.mark.guarantee(
    "a receipt with one changed character, or with an epsilon that its noise does not give, is refused."
)
def test_an_epsilon_that_does_not_follow_is_refused_though_it_is_signed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.operator.receipts.epsilon_rdp", lambda *_: 0.01)
    flattering = issue(ledger, "r-1", ec.generate_private_key(ec.SECP384R1()), "").as_json()
    ledger.close()
    monkeypatch.undo()
    with pytest.raises(PeerError, match=r"the receipt says 0\.01"):
        verify(flattering)


class Signing:
    """A federation's authority, and a node that it certified."""

    def __init__(self, folder: Path, name: str) -> None:
        create(folder / "authority", "a federation")
        self.authority = (folder / "authority" / "authority.crt").read_bytes()
        self.key = _made_key(folder / "node.key")
        self.certificate = issue_node(folder / "authority", name, _request(self.key, name).encode()).decode()


@pytest.mark.guarantee("a name is said of a signer only if the given authority certified that very key for it.")
def test_a_receipt_says_whose_it_is_to_whoever_trusts_the_authority(ledger: Ledger, tmp_path: Path) -> None:
    ours, theirs = Signing(tmp_path, "st-mary"), Signing(tmp_path / "other", "st-mary")
    receipt = verify(issue(ledger, "r-1", ours.key, ours.certificate).as_json())
    der = ours.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(der).hexdigest()
    assert signer(receipt, ours.authority) == Signer(fingerprint, "st-mary")
    assert signer(receipt) == Signer(fingerprint, ""), "without an authority nobody is named"
    with pytest.raises(PeerError, match="this authority certified"):
        signer(receipt, theirs.authority)
    with pytest.raises(SettingsError, match="as the authority"):
        signer(receipt, b"no certificate")
    ledger.close()


@pytest.mark.guarantee("a name is said of a signer only if the given authority certified that very key for it.")
def test_another_nodes_certificate_or_one_of_another_time_names_nobody(ledger: Ledger, tmp_path: Path) -> None:
    ours = Signing(tmp_path, "st-mary")
    thief = ec.generate_private_key(ec.SECP384R1())
    borrowed = verify(issue(ledger, "r-1", thief, ours.certificate).as_json())
    late = replace(statement(ledger, "r-1"), issued=(datetime.now(UTC) + timedelta(days=800)).isoformat())
    for receipt in (borrowed, verify(sign(late, ours.key, ours.certificate).as_json())):
        with pytest.raises(PeerError, match="of the very key, and of the receipt's time"):
            signer(receipt, ours.authority)
    for none in ("", "nonsense"):
        with pytest.raises(PeerError, match="this authority certified"):
            signer(verify(issue(ledger, "r-1", ours.key, none).as_json()), ours.authority)
    ledger.close()


def test_a_receipt_of_version_1_is_still_checked(ledger: Ledger) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    plain = json.loads(sign(replace(statement(ledger, "r-1"), fedvault_receipt=1), key, "").as_json())
    ledger.close()
    del plain["certificate"]
    assert verify(json.dumps(plain)).rounds_paid == (1, 3)


@pytest.mark.parametrize("nonsense", ["", "[]", "{}", "null", '{"fedvault_receipt": 1}'])
def test_what_is_no_receipt_is_said_so(nonsense: str) -> None:
    with pytest.raises(PeerError, match="Expected a receipt"):
        verify(nonsense)


def test_a_receipt_of_shared_noise_says_what_all_other_nodes_could_see(tmp_path: Path) -> None:
    release = SharedGaussian(1.5, 0.05, 1)
    with Ledger(tmp_path / "shared.db", second_copy=tmp_path / "second" / "head.json") as opened:
        register(opened, "secret-ward", epsilon=3.0, delta=1e-5)
        any_cost = Limit(3.0, 1e-5, math.inf)
        opened.approve(
            "secret-ward", "r-1", study_sha256="s" * 64, rounds=5, per_round=release, declared={"secret-ward": any_cost}
        )
        assert statement(opened, "r-1").epsilon_if_all_collude == 0.0, "nothing is released before there is a roster"
        take_roster(opened, "r-1", "a" * 64, nodes=10, threshold=8, colluders=1)
        opened.reserve("r-1", 1)
        receipt = issue(opened, "r-1", ec.generate_private_key(ec.SECP256R1()), "")
    paid = release.with_nodes(10, 8, 1)
    assert receipt.fedvault_receipt == 3 and receipt.release["nodes"] == 10
    assert receipt.epsilon_if_all_collude == epsilon_if_colluding([paid], 1e-5) > receipt.epsilon
    assert verify(receipt.as_json()) == receipt
    for wrong in (None, receipt.epsilon, "x"):
        with pytest.raises(PeerError):
            verify(
                sign(
                    replace(receipt, epsilon_if_all_collude=wrong), ec.generate_private_key(ec.SECP256R1()), ""
                ).as_json()
            )  # type: ignore[arg-type]


def test_a_receipt_of_a_run_with_evaluations_says_what_they_released_and_the_larger_side(tmp_path: Path) -> None:
    each, key = NoisyCounts(2.0, 1), ec.generate_private_key(ec.SECP256R1())
    with Ledger(tmp_path / "evaluated.db", second_copy=tmp_path / "second" / "head.json") as opened:
        terms = DatasetTerms(declared_size=50, holdout=0.1, identity_version=2)
        opened.enter(records_row("secret-ward", (), None) | registration_row("secret-ward", Limit(9.0, 1e-5), terms))
        evaluations = Evaluations(each, (2, 5))
        more: dict[str, Any] = {"study_sha256": "s" * 64, "rounds": 5, "per_round": RELEASE, "evaluations": evaluations}
        opened.approve("secret-ward", "r-1", **more)
        assert verify(issue(opened, "r-1", key, "").as_json()).epsilon == 0.0
        opened.reserve("r-1", 1)
        opened.enter({"kind": "evaluation", "run": "r-1", "number": 2, "adapter_sha256": "a" * 64})
        receipt = issue(opened, "r-1", key, "")
        assert receipt.epsilon == pytest.approx(opened.state.spent("secret-ward"))
    assert (receipt.fedvault_receipt, receipt.rounds_paid, receipt.evaluations_paid) == (4, (1,), (2,))
    assert receipt.epsilon == epsilon_rdp([LargestSide(((RELEASE,), (each,)))], 1e-5)
    assert verify(receipt.as_json()) == receipt
    changes: tuple[dict[str, Any], ...] = (
        {"evaluation": None}, {"pays_for_both_sides": True}, {"fedvault_receipt": 2}, {"epsilon": 0.1},
        {"evaluation": {"mechanism": "x"}},
    )  # fmt: skip
    for wrong in changes:
        with pytest.raises(PeerError):
            verify(sign(replace(receipt, **wrong), key, "").as_json())
    plain = json.loads(receipt.as_json())
    with pytest.raises(PeerError):
        verify(json.dumps(plain | {"evaluations_paid": [2, 5]}))


def test_a_receipt_of_a_run_that_shares_the_noise_of_rounds_and_counts_says_both(tmp_path: Path) -> None:
    release, each = SharedGaussian(1.5, 0.05, 1), SharedCounts(2.0, 1.0, 1)
    key, limit = ec.generate_private_key(ec.SECP256R1()), Limit(9.0, 1e-5, math.inf)
    with Ledger(tmp_path / "both.db", second_copy=tmp_path / "second" / "head.json") as opened:
        terms = DatasetTerms(declared_size=50, holdout=0.1, identity_version=2)
        opened.enter(records_row("secret-ward", (), None) | registration_row("secret-ward", limit, terms))
        more: dict[str, Any] = {"study_sha256": "s" * 64, "rounds": 5, "per_round": release}
        opened.approve(
            "secret-ward", "r-1", **more, evaluations=Evaluations(each, (2, 5)), declared={"secret-ward": limit}
        )
        assert verify(issue(opened, "r-1", key, "").as_json()).epsilon_if_all_collude == 0.0
        take_roster(opened, "r-1", "a" * 64, nodes=10, threshold=8, colluders=1)
        opened.reserve("r-1", 1)
        opened.enter({"kind": "evaluation", "run": "r-1", "number": 2, "adapter_sha256": "a" * 64})
        receipt = issue(opened, "r-1", key, "")
    sides = LargestSide(((release.with_nodes(10, 8, 1),), (each.with_nodes(10, 8, 1),)))
    assert receipt.fedvault_receipt == 5 and verify(receipt.as_json()) == receipt
    assert receipt.epsilon == epsilon_rdp([sides], 1e-5)
    assert receipt.epsilon_if_all_collude == epsilon_if_colluding([sides], 1e-5) > receipt.epsilon
    changes: tuple[dict[str, Any], ...] = (
        {"epsilon_if_all_collude": receipt.epsilon}, {"evaluation": None}, {"fedvault_receipt": 4},
        {"fedvault_receipt": 3}, {"pays_for_both_sides": True},
    )  # fmt: skip
    for wrong in changes:
        with pytest.raises(PeerError):
            verify(sign(replace(receipt, **wrong), key, "").as_json())


def test_a_receipt_without_shared_noise_has_the_fields_that_it_always_had(ledger: Ledger) -> None:
    with ledger:
        receipt = issue(ledger, "r-1", ec.generate_private_key(ec.SECP256R1()), "")
    assert receipt.fedvault_receipt == 2 and "collude" not in receipt.as_json()
    for version in (3, "2", None):
        changed = replace(receipt, fedvault_receipt=version)  # type: ignore[arg-type]
        with pytest.raises(PeerError):
            verify(json.dumps(vars(changed)))
