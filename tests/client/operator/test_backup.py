"""Backups: what an operator can restore, and cannot roll back."""

import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.operator.backup import back_up
from client.operator.ledger_report import recover
from client.settings import folders, load_node
from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.errors import LedgerError, SettingsError
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import Status, TrainTask
from shared.study.declaration import Study
from shared.study.sections import Model
from tests.support.operators import approve_study

Studies = Callable[..., Study]
RELEASE = SubsampledGaussian(1.5, 0.05, 6)


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


def test_a_backup_holds_what_a_crash_needs_of_the_released_updates_and_no_more(node: Node, tmp_path: Path) -> None:
    with open_node(node.config).open_ledger() as ledger:
        for number in (1, 2):
            ledger.reserve("r-1", number)
            ledger.commit("r-1", number, b"released")
    outbox = node.config.parent / "node" / "outbox"
    (outbox / "of a run that is over").write_bytes(b"released")
    back_up(open_node(node.config), tmp_path / "backup.tar.gz")
    with tarfile.open(tmp_path / "backup.tar.gz") as tar:
        kept = [name for name in tar.getnames() if name.startswith("home/outbox/")]
    assert len(kept) == 2 and "home/outbox/of a run that is over" not in kept
