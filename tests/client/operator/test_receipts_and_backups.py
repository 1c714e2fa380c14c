"""What an auditor checks, and what an operator can restore."""

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.link.membership import _made_key, _request
from client.operator.backup import back_up
from client.operator.ledger_report import recover
from client.operator.receipts import Receipt, Signer, read_statement, sign, signer, statement, verify
from client.settings import folders, load_node
from client.vault.ledger.ledger import Ledger
from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from server.certificate_authority import create, issue_node
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.errors import LedgerError, PeerError, SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import Status, TrainTask
from shared.study.declaration import Study
from shared.study.sections import Model
from tests.support.ledgers import register
from tests.support.operators import approve_study

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
    for wrong in (signed, written.replace('"epsilon": 0', '"epsilon": 1'), "{}", "no json"):
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


class Node:
    """A node with one approved run."""

    def __init__(self, folder: Path, tiny_bert: Path, make_study: Studies) -> None:
        fingerprint = find(Model(source=str(tiny_bert))).fingerprint
        self.config = folder / "node.toml"
        self.config.write_text(
            f'[node]\nmodels = "{tiny_bert.parent}"\n[datasets.ward]\nsource = "ward.csv"\nepsilon = 3.0\n'
            f'delta = 1e-5\ndeclared_size = 54\nsmallest_cohort = 1\nmodels = ["{fingerprint}"]\n'
        )
        rows = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
        (folder / "ward.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        self.study = make_study(model={"source": str(tiny_bert), "fingerprint": fingerprint})
        approve_study(self.config, self.study)

    def train(self, number: int) -> Status:
        zeros = np.zeros(layout_of(self.study).length, np.float32)
        return NodeVault(self.config).train(TrainTask(self.study.sha256, "r-1", number, zeros)).status


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> Node:
    folder = tmp_path / "here"
    folder.mkdir()
    return Node(folder, tiny_bert, make_study)


@pytest.mark.guarantee(
    "a backup holds no second copy of the ledger's height, so restoring an old one is noticed, not believed."
)
def test_an_old_backup_cannot_roll_the_ledger_back(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    assert node.train(1) is Status.TRAINED
    back_up(open_node(node.config), archive)
    assert node.train(2) is Status.TRAINED
    home = node.config.parent / "node"
    shutil.rmtree(home)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", home)
    assert not [name for name in names if re.search(r"head\.json|cache|\.lock|-wal", name)]
    with pytest.raises(LedgerError, match="as its second copy says"), open_node(node.config).open_ledger():
        pass
    assert node.train(3) is Status.REFUSED_LEDGER


@pytest.mark.parametrize("inside", ["node", "node/copy", "./node/../node/deeper"])
def test_a_second_copy_inside_the_home_is_not_allowed(tmp_path: Path, inside: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\nledger_copy = "{inside}"\n')
    with pytest.raises(SettingsError, match=r"outside node\.home"):
        folders(config, load_node(config))


def test_a_second_copy_that_a_link_brings_into_the_home_is_left_out_of_a_backup(node: Node, tmp_path: Path) -> None:
    (node.config.parent / "node" / "kept.json").symlink_to(node.config.parent / "node-ledger-copy" / "head.json")
    back_up(open_node(node.config), tmp_path / "backup.tar.gz")
    with tarfile.open(tmp_path / "backup.tar.gz") as tar:
        assert "home/kept.json" not in tar.getnames() and "home/ledger.db" in tar.getnames()


def test_a_backup_goes_on_on_a_new_machine_once_a_person_has_accepted_it(node: Node, tmp_path: Path) -> None:
    assert node.train(1) is Status.TRAINED
    back_up(open_node(node.config), tmp_path / "backup.tar.gz")
    for folder in ("node", "node-ledger-copy"):
        shutil.rmtree(node.config.parent / folder)
    with tarfile.open(tmp_path / "backup.tar.gz") as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", node.config.parent / "node")
    assert node.train(1) is Status.REFUSED_LEDGER
    recover(open_node(node.config))
    assert node.train(1) is Status.TRAINED, "the same bytes as before"
    assert node.train(2) is Status.LOST, "it may have been trained since the backup"


def test_a_backup_on_another_machine_stops_until_a_person_has_looked(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    assert node.train(1) is Status.TRAINED
    back_up(open_node(node.config), archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(node.config.parent / "node")
    shutil.rmtree(node.config.parent / "node-ledger-copy")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", node.config.parent / "node")
    with pytest.raises(LedgerError, match="second copy"), open_node(node.config).open_ledger():
        pass


def test_a_backup_of_everything_together_goes_on_where_it_was(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    assert node.train(1) is Status.TRAINED
    back_up(open_node(node.config), archive)
    shutil.rmtree(node.config.parent / "node")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", node.config.parent / "node")
    assert node.train(1) is Status.TRAINED and node.train(2) is Status.TRAINED
    with pytest.raises(SettingsError, match="Expected a new file"):
        back_up(open_node(node.config), archive)
