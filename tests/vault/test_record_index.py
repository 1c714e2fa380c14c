"""Identity is the data's: renaming, editing and registering anew reset nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.vault.ledger import Ledger
from client.vault.record_index import KEY_BYTES, RecordIndex, node_key
from shared.errors import BudgetError, LedgerError, PolicyRefusal
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian

ROUND = SubsampledGaussian(1.5, 0.1, 6)


@pytest.fixture
def index(tmp_path: Path) -> RecordIndex:
    return RecordIndex(tmp_path / "records.db", node_key(tmp_path / "key"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", second=tmp_path / "head.json") as opened:
        yield opened


def registered(ledger: Ledger, index: RecordIndex, name: str, texts: list[str], *, epsilon: float = 3.0) -> None:
    others = index.enter(name, texts)
    ledger.register(name, epsilon=epsilon, delta=1e-5)
    ledger.tie(name, others)


@pytest.mark.guarantee("a dataset that shares any record with an older one is tied to it, whatever its name.")
@pytest.mark.parametrize(
    "texts",
    [
        ["one", "two", "three"],
        ["  ONE ", "edited", "other"],
        ["new", "records", "\uff54\uff48\uff52\uff45\uff45"],
    ],
)
def test_one_shared_record_is_one_budget(index: RecordIndex, ledger: Ledger, texts: list[str]) -> None:
    registered(ledger, index, "ward", ["one", "two", "three"])
    ledger.approve("ward", "first", study_sha256="s" * 64, rounds=4, per_round=ROUND)
    ledger.reserve("first", 1)
    registered(ledger, index, "renamed", texts, epsilon=100.0)
    assert ledger.books.spent("renamed") == ledger.books.spent("ward") > 0
    assert ledger.books.limit("renamed").epsilon == 3.0
    fitting = ledger.books.affordable_rounds("renamed", ROUND)
    with pytest.raises(BudgetError):
        ledger.approve("renamed", "second", study_sha256="s" * 64, rounds=fitting + 1, per_round=ROUND)


def test_ties_reach_through_others_and_stay_after_the_records_are_gone(index: RecordIndex, ledger: Ledger) -> None:
    registered(ledger, index, "a", ["one"])
    registered(ledger, index, "b", ["one", "two"])
    registered(ledger, index, "c", ["two", "three"])
    registered(ledger, index, "apart", ["four"])
    assert ledger.books.account("a") == {"a", "b", "c"} and ledger.books.account("apart") == {"apart"}
    assert index.enter("a", ["nothing of before"]) == {"b"}
    ledger.approve("c", "run", study_sha256="s" * 64, rounds=1, per_round=ROUND)
    assert ledger.books.promised("a") == epsilon_rdp([ROUND], 1e-5) and ledger.books.promised("apart") == 0.0


def test_withdrawing_reaches_everything_that_shares_records(index: RecordIndex, ledger: Ledger) -> None:
    registered(ledger, index, "a", ["one"])
    registered(ledger, index, "b", ["one"])
    ledger.withdraw("a")
    with pytest.raises(PolicyRefusal, match="'a' with its records was withdrawn"):
        ledger.approve("b", "run", study_sha256="s" * 64, rounds=1, per_round=ROUND)


def test_empty_texts_tie_nothing(index: RecordIndex) -> None:
    index.enter("a", ["", "  "])
    assert index.enter("b", ["", "\t"]) == set()


def test_known_ties_are_entered_once(index: RecordIndex, ledger: Ledger) -> None:
    registered(ledger, index, "a", ["one"])
    registered(ledger, index, "b", ["one"])
    height = ledger.height
    ledger.tie("b", index.enter("b", ["one"]))
    ledger.tie("a", index.enter("a", ["one"]))
    assert ledger.height == height


def test_hashes_say_nothing_without_the_key(tmp_path: Path) -> None:
    for name in ("here", "there"):
        RecordIndex(tmp_path / f"{name}.db", node_key(tmp_path / f"{name}.key")).enter("a", ["a secret record"])
    stored = [(tmp_path / f"{name}.db").read_bytes() for name in ("here", "there")]
    assert stored[0] != stored[1] and not any(b"secret" in content for content in stored)
    assert (tmp_path / "here.key").stat().st_mode & 0o777 == 0o600
    assert node_key(tmp_path / "here.key") == node_key(tmp_path / "here.key") != node_key(tmp_path / "there.key")


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(LedgerError, match=f"{KEY_BYTES} bytes"):
        node_key(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == b"short"
