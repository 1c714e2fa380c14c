"""Identity is the data's: renaming, editing and registering anew reset nothing."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.record_index import KEY_BYTES, RecordIndex, node_key
from client.vault.ledger.registration import Registration, Registry
from client.vault.ledger.rows import UNDECLARED, DatasetTerms, Limit
from shared.errors import BudgetError, LedgerError, PolicyRefusal
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import rows_of

Registered = Callable[..., None]
ROUND = SubsampledGaussian(1.5, 0.1, 6)


@pytest.fixture
def index(tmp_path: Path) -> RecordIndex:
    return RecordIndex(tmp_path / "records.db", node_key(tmp_path / "key"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "head.json") as opened:
        yield opened


@pytest.fixture
def registered(ledger: Ledger, tmp_path: Path) -> Callable[..., None]:
    """Enters texts as a dataset's records, as the node does."""

    def enter(name: str, texts: list[str], *, epsilon: float = 3.0, terms: DatasetTerms = UNDECLARED) -> None:
        registry = Registry(tmp_path / "records.db", tmp_path / "key", ledger.state)
        asked = Registration(name, Limit(epsilon, 1e-5), terms, registry.identities(texts))
        registry.enter(ledger, asked, lambda state: state.budget(name).check_fits(asked_for="records"))

    return enter


@pytest.mark.guarantee("a dataset that shares any record with an older one is tied to it, whatever its name.")
@pytest.mark.parametrize(
    "texts",
    [
        ["one", "two", "three"],
        ["  ONE ", "edited", "other"],
        ["new", "records", "\uff54\uff48\uff52\uff45\uff45"],
    ],
)
def test_one_shared_record_is_one_budget(registered: Registered, ledger: Ledger, texts: list[str]) -> None:
    registered("ward", ["one", "two", "three"])
    ledger.approve("ward", "first", study_sha256="s" * 64, rounds=4, per_round=ROUND)
    ledger.reserve("first", 1)
    registered("renamed", texts, epsilon=100.0)
    assert ledger.state.spent("renamed") == ledger.state.spent("ward") > 0
    assert ledger.state.budget("renamed").limit.epsilon == 3.0
    fitting = ledger.state.budget("renamed").affordable_rounds(ROUND)
    with pytest.raises(BudgetError):
        ledger.approve("renamed", "second", study_sha256="s" * 64, rounds=fitting + 1, per_round=ROUND)


def test_ties_reach_through_others_and_stay_after_the_records_are_gone(registered: Registered, ledger: Ledger) -> None:
    registered("a", ["one"])
    registered("b", ["one", "two"])
    registered("c", ["two", "three"])
    registered("apart", ["four"])
    assert ledger.state.account("a") == {"a", "b", "c"} and ledger.state.account("apart") == {"apart"}
    registered("a", ["nothing of before"])
    assert ledger.state.account("a") == {"a", "b", "c"}
    ledger.approve("c", "run", study_sha256="s" * 64, rounds=1, per_round=ROUND)
    assert (
        ledger.state.budget("a").epsilon() == epsilon_rdp([ROUND], 1e-5)
        and ledger.state.budget("apart").epsilon() == 0.0
    )


def test_withdrawing_reaches_everything_that_shares_records(registered: Registered, ledger: Ledger) -> None:
    registered("a", ["one"])
    registered("b", ["one"])
    ledger.withdraw("a")
    with pytest.raises(PolicyRefusal, match="'a' with its records was withdrawn"):
        ledger.approve("b", "run", study_sha256="s" * 64, rounds=1, per_round=ROUND)


def test_empty_texts_tie_nothing(registered: Registered, ledger: Ledger) -> None:
    registered("a", ["", "  "])
    registered("b", ["", "\t"])
    assert ledger.state.account("b") == {"b"}


@pytest.mark.guarantee("registering a dataset enters one row, whatever its records share with others.")
@pytest.mark.parametrize("texts", [["apart"], ["one"], ["one", "two"], ["one", "two", "three"], [""]])
def test_registering_enters_one_row_whatever_is_shared(
    registered: Registered, ledger: Ledger, texts: list[str]
) -> None:
    for name in ("one", "two", "three"):
        registered(name, [name])
    assert ledger.height == 3
    for again in (4, 5):
        registered("new", texts)
        assert ledger.height == again


def test_the_hash_that_is_sent_is_of_a_row_with_128_random_bits(registered: Registered, ledger: Ledger) -> None:
    registered("a", ["one"])
    (row,) = rows_of(ledger)
    assert len(row["salt"]) == 32, "nobody finds out by trying what the row says of the records"


def test_datasets_with_different_units_never_become_one_account(registered: Registered, ledger: Ledger) -> None:
    registered("rows", ["one"], terms=DatasetTerms("record", 10))
    with pytest.raises(PolicyRefusal, match="'people' hides one patient and 'rows' one record"):
        registered("people", ["one", "two"], terms=DatasetTerms("patient", 10))
    registered("people", ["two"], terms=DatasetTerms("patient", 10))
    with pytest.raises(PolicyRefusal, match="hide the same unit"):
        registered("people", ["two", "one"])
    assert ledger.state.account("people") == {"people"} and ledger.height == 2
    registered("more-people", ["two"], terms=DatasetTerms("patient", 20))
    assert ledger.state.account("people") == {"people", "more-people"}


def test_records_that_would_earmark_too_much_together_are_not_registered(
    registered: Registered, ledger: Ledger
) -> None:
    for name in ("a", "b"):
        registered(name, [name])
        rounds = ledger.state.budget(name).affordable_rounds(ROUND)
        ledger.approve(name, f"run-{name}", study_sha256="s" * 64, rounds=rounds, per_round=ROUND)
    with pytest.raises(BudgetError, match=r"epsilon=3 of 'c' \(one account with a, b\)"):
        registered("c", ["a", "b"])
    assert "c" not in ledger.state.limits and ledger.height == 4


@pytest.mark.guarantee(
    "an index or a key that is gone, older or another one than the ledger knows is never used, nor made anew."
)
@pytest.mark.parametrize("what", ["records.db", "key"])
@pytest.mark.parametrize("how", ["gone", "older", "another"])
def test_another_index_or_key_stops_registering(
    registered: Registered, ledger: Ledger, tmp_path: Path, what: str, how: str
) -> None:
    registered("ward", ["one"])
    path = tmp_path / what
    older = path.read_bytes()
    registered("ward", ["one", "two"])
    if how == "gone":
        path.unlink()
    elif what == "key":
        path.write_bytes(os.urandom(KEY_BYTES) if how == "another" else older[:5])
    elif how == "older":
        path.write_bytes(older)
    else:
        change(path, "UPDATE records SET dataset = 'other'")
    with pytest.raises(LedgerError) as raised:
        registered("renamed", ["two"])
    assert "Restore it from a backup" in raised.value.hint
    assert path.exists() == (how != "gone") and ledger.height == 2


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def test_an_index_that_a_crash_left_ahead_goes_on_and_only_ties_more(
    registered: Registered, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered("ward", ["one"])
    monkeypatch.setattr(ledger, "enter", lambda _row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        registered("renamed", ["one", "two"])
    monkeypatch.undo()
    registered("third", ["two"])
    assert ledger.state.account("third") == {"third"}, "nothing was spent under a name that is not registered"
    registered("renamed", ["neither"])
    assert ledger.state.account("renamed") == {"ward", "renamed", "third"}


def test_looking_keeps_nothing(index: RecordIndex, registered: Registered, ledger: Ledger) -> None:
    registered("ward", ["one"])
    before = index.known("ward"), index.known("renamed")
    assert index.look("renamed", index.hashed(["one", "two"])).others == {"ward"}
    assert (index.known("ward"), index.known("renamed")) == before and not before[1]


def test_hashes_say_nothing_without_the_key(tmp_path: Path) -> None:
    for name in ("here", "there"):
        index = RecordIndex(tmp_path / f"{name}.db", node_key(tmp_path / f"{name}.key"))
        with index.entering("a", index.hashed(["a secret record"])):
            pass
    stored = [(tmp_path / f"{name}.db").read_bytes() for name in ("here", "there")]
    assert stored[0] != stored[1] and not any(b"secret" in content for content in stored)
    assert (tmp_path / "here.key").stat().st_mode & 0o777 == 0o600
    assert node_key(tmp_path / "here.key") == node_key(tmp_path / "here.key") != node_key(tmp_path / "there.key")


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(LedgerError, match=f"{KEY_BYTES} bytes"):
        node_key(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == b"short"
