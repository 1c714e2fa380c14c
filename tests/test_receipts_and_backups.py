"""What an auditor checks, and what an operator can restore."""

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from client.backup import back_up
from client.receipts import issue, verify
from client.vault.desk import Desk
from client.vault.ledger import Ledger
from client.vault.vaults import Vaults
from shared.adapted_model import layout_of
from shared.errors import LedgerError, PeerError, SettingsError
from shared.foundation import find
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from shared.protocol import Status, TrainTask
from shared.study import Model, Study

Studies = Callable[..., Study]
RELEASE = SubsampledGaussian(1.5, 0.05, 6)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two rounds paid of a run of five."""
    opened = Ledger(tmp_path / "ledger.db", second=tmp_path / "second" / "head.json")
    opened.register("secret-ward", epsilon=3.0, delta=1e-5)
    opened.approve("secret-ward", "r-1", study_sha256="s" * 64, rounds=5, per_round=RELEASE)
    opened.reserve("r-1", 1)
    opened.commit("r-1", 1, b"released")
    opened.reserve("r-1", 3)
    return opened


def test_a_receipt_says_what_was_paid_and_can_be_checked_by_anyone(ledger: Ledger) -> None:
    written = issue(ledger, "r-1", ec.generate_private_key(ec.SECP384R1())).as_json()
    found = verify(written)
    assert found.rounds_paid == (1, 3), "a round whose update was lost is paid for too"
    assert found.epsilon == pytest.approx(epsilon_rdp([SubsampledGaussian(1.5, 0.05, 12)], 1e-5))
    assert found.epsilon == pytest.approx(ledger.books.spent("secret-ward"))
    assert (found.ledger_height, found.ledger_head) == (ledger.height, ledger.head)
    assert "secret-ward" not in written
    with pytest.raises(SettingsError, match=r"run of the ledger \(r-1\)"):
        issue(ledger, "r-2", ec.generate_private_key(ec.SECP384R1()))
    ledger.close()


@pytest.mark.guarantee(
    "a receipt with one changed character, or with an epsilon that its noise does not give, is refused."
)
def test_a_changed_receipt_is_refused_character_by_character(ledger: Ledger) -> None:
    written = issue(ledger, "r-1", ec.generate_private_key(ec.SECP384R1())).as_json()
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
    monkeypatch.setattr("client.receipts.epsilon_rdp", lambda *_: 0.01)
    flattering = issue(ledger, "r-1", ec.generate_private_key(ec.SECP384R1())).as_json()
    ledger.close()
    monkeypatch.undo()
    with pytest.raises(PeerError, match=r"the receipt says 0\.01"):
        verify(flattering)


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
        desk = Desk(self.config)
        weighed = desk.weigh(self.study, "ward")
        with desk.ledger() as ledger:
            desk.approve(ledger, weighed, "r-1")

    def train(self, number: int) -> Status:
        zeros = np.zeros(layout_of(self.study).length, np.float32)
        return Vaults(self.config).train(TrainTask(self.study.sha256, "r-1", number, zeros)).status


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
    back_up(Desk(node.config), archive)
    assert node.train(2) is Status.TRAINED
    home = node.config.parent / "node"
    shutil.rmtree(home)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", home)
    assert not [name for name in names if re.search(r"head\.json|cache|\.lock|-wal", name)]
    with pytest.raises(LedgerError, match="as its second copy says"), Desk(node.config).ledger():
        pass
    assert node.train(3) is Status.REFUSED_LEDGER


def test_a_backup_on_another_machine_stops_until_a_person_has_looked(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    assert node.train(1) is Status.TRAINED
    back_up(Desk(node.config), archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(node.config.parent / "node")
    shutil.rmtree(node.config.parent / "node-ledger-copy")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", node.config.parent / "node")
    with pytest.raises(LedgerError, match="second copy"), Desk(node.config).ledger():
        pass


def test_a_backup_of_everything_together_goes_on_where_it_was(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    assert node.train(1) is Status.TRAINED
    back_up(Desk(node.config), archive)
    shutil.rmtree(node.config.parent / "node")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    shutil.move(tmp_path / "restored" / "home", node.config.parent / "node")
    assert node.train(1) is Status.TRAINED and node.train(2) is Status.TRAINED
    with pytest.raises(SettingsError, match="Expected a new file"):
        back_up(Desk(node.config), archive)
