"""A damaged ledger, and the person who goes on: what was spent stays so, and what may be missing is not spent anew."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import client.vault.ledger.recovery as module
from client.vault.ledger.damage import Trouble, examine
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.positions import with_mac
from client.vault.ledger.recovery import accept
from shared.errors import LedgerError, PolicyRefusal, SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import LedgerPosition
from tests.support.ledgers import register, rows_of

DELTA, ROUND, ROUNDS = 1e-5, SubsampledGaussian(1.5, 0.1, 6), 4
WHOLE_RUN = epsilon_rdp([SubsampledGaussian(1.5, 0.1, 6 * ROUNDS)], DELTA)


@dataclass
class Node:
    """A ledger with one run of four rounds, two of them paid."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "node" / "ledger.db"

    @property
    def second_copy(self) -> Path:
        return self.folder / "elsewhere" / "head.json"

    def open(self) -> Ledger:
        return Ledger(self.path, second_copy=self.second_copy)

    def fill(self) -> None:
        with self.open() as ledger:
            register(ledger, "ward", epsilon=30.0, delta=DELTA)
            ledger.approve("ward", "run", study_sha256="s" * 64, rounds=ROUNDS, per_round=ROUND)
            for number in (1, 2):
                ledger.reserve("run", number)
                ledger.commit("run", number, b"released %d" % number)

    def damage(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path)) as database:
            database.executescript(
                f"DROP TRIGGER rows_stay; DROP TRIGGER rows_last; DROP TRIGGER rows_in_order; {statement}"
            )

    def accept(self, *datasets: str) -> None:
        accept(self.path, self.second_copy, datasets=datasets)

    def cannot_train(self, dataset: str) -> bool:
        with self.open() as ledger:
            if dataset not in ledger.state.limits:
                register(ledger, dataset, epsilon=9.0, delta=DELTA)
            try:
                ledger.approve(dataset, "later", study_sha256="s" * 64, rounds=1, per_round=ROUND)
            except PolicyRefusal as error:
                return "withdrawn" in str(error)
        return False


def of_this_node(node: Node, position: LedgerPosition) -> LedgerPosition:
    """A position as if this node had sent it."""
    return with_mac(position, node.path, known=None)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path)
    found.fill()
    yield found


@pytest.mark.guarantee(
    "accepting never lowers what is spent, and where rows are known to be missing all training on its records ends."
)
def test_a_backup_on_a_new_machine_goes_on_with_every_open_round_charged(node: Node) -> None:
    shutil.rmtree(node.second_copy.parent)
    with pytest.raises(LedgerError, match="second copy"):
        node.open()
    node.accept("ward")
    with node.open() as ledger:
        assert ledger.state.spent("ward") == pytest.approx(WHOLE_RUN) and ledger.state.runs["run"].closed
        assert ledger.answer("run", 2) == b"released 2"
        assert 3 in ledger.state.runs["run"].attempts and ledger.answer("run", 3) is None
        last = rows_of(ledger)[-1]
        assert last["kind"] == "accept" and last["troubles"] == ["no_second"]
        ledger.approve("ward", "next", study_sha256="s" * 64, rounds=1, per_round=ROUND)


@pytest.mark.guarantee(
    "accepting never lowers what is spent, and where rows are known to be missing all training on its records ends."
)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET body = replace(body, '30.0', '99.0') WHERE height = 1",
        "UPDATE rows SET body = 'nonsense' WHERE height = 3",
        "UPDATE rows SET body = replace(body, '\"reserve\"', '\"close\"') WHERE height = 5",
        "UPDATE rows SET hash = 'x' WHERE height = 2",
        "DELETE FROM rows WHERE height = 1",
        "DELETE FROM rows WHERE height = 4",
        "DELETE FROM rows WHERE height > 3",
    ],
)
def test_after_damage_the_ledger_opens_and_its_records_are_never_trained_on_again(node: Node, statement: str) -> None:
    node.damage(statement)
    with pytest.raises(LedgerError):
        node.open()
    node.accept("ward", "newer")
    with node.open() as ledger:
        assert rows_of(ledger)[-1]["kind"] == "accept"
        assert "run" not in ledger.state.runs or ledger.state.spent("ward") == pytest.approx(WHOLE_RUN)
    assert node.cannot_train("ward"), "what is missing may have spent it all"
    assert node.cannot_train("newer"), "the missing rows may have been about it"
    assert list(node.path.parent.glob("ledger.db.*.set-aside")), "what was there is kept for whoever looks"


def test_an_older_copy_of_the_second_copy_is_no_sign_of_missing_rows(node: Node) -> None:
    with node.open() as ledger:
        older = {"height": 2, "head": rows_of(ledger)[1]["hash"]}
    node.second_copy.write_text(json.dumps(older))
    with pytest.raises(LedgerError):
        node.open()
    node.accept("ward")
    assert not node.cannot_train("ward")


@pytest.mark.guarantee(
    "accepting never lowers what is spent, and where rows are known to be missing all training on its records ends."
)
def test_what_the_server_saw_and_both_copies_lost_is_decided_once(node: Node) -> None:
    for part in ("node", "elsewhere"):
        shutil.copytree(node.folder / part, node.folder / f"old-{part}")
    with node.open() as ledger:
        ledger.reserve("run", 3)
        seen = ledger.position_with_mac
    for part in ("node", "elsewhere"):
        shutil.rmtree(node.folder / part)
        shutil.move(node.folder / f"old-{part}", node.folder / part)
    with node.open() as ledger, pytest.raises(LedgerError, match="as the server saw it"):
        ledger.check_server_copy(seen)
    assert examine(node.path, node.second_copy).troubles == (Trouble.SERVER_COPY_DIFFERS,)
    node.accept("ward")
    with node.open() as ledger:
        ledger.check_server_copy(seen)
        register(ledger, "other", epsilon=9.0, delta=DELTA)
        with pytest.raises(LedgerError, match="as the server saw it"):
            # a row of the same lost ones, which another server saw
            ledger.check_server_copy(of_this_node(node, LedgerPosition(seen.height - 1, "f" * 64)))
    node.accept("ward", "other")
    assert node.cannot_train("ward") and not node.cannot_train("other")


def test_a_server_that_takes_its_word_back_leaves_nothing_to_decide(node: Node) -> None:
    with node.open() as ledger:
        with pytest.raises(LedgerError):
            ledger.check_server_copy(LedgerPosition(100, "f" * 64))
        assert examine(node.path, node.second_copy).troubles == (Trouble.SERVER_COPY_UNPROVEN,)
        ledger.check_server_copy(ledger.position)
        assert examine(node.path, node.second_copy).troubles == ()


def test_a_whole_ledger_needs_no_decision_and_one_that_cannot_be_read_needs_a_backup(node: Node) -> None:
    with pytest.raises(SettingsError, match="this one is whole"):
        node.accept("ward")
    node.path.write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match="none can be read") as raised:
        node.accept("ward")
    assert "backup" in raised.value.hint
    node.path.unlink()
    with pytest.raises(LedgerError, match="none can be read"):
        node.accept("ward")


def test_a_page_that_the_disk_lost_takes_the_rows_behind_it_and_no_others(node: Node) -> None:
    with node.open() as ledger:
        ledger.approve("ward", "long", study_sha256="s" * 64, rounds=200, per_round=ROUND)
        for number in range(1, 101):
            ledger.reserve("long", number)
    content = bytearray(node.path.read_bytes())
    content[-4096:] = bytes(4096)
    node.path.write_bytes(content)
    with pytest.raises(LedgerError):
        node.open()
    node.accept("ward")
    with node.open() as ledger:
        assert ledger.state.spent("ward") > WHOLE_RUN
    assert node.cannot_train("ward")


@pytest.mark.parametrize("place", ["_replace", "write_position"])
def test_a_crash_while_accepting_leaves_a_decision_to_be_made_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    node.damage("DELETE FROM rows WHERE height = 4")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, place, crash)
    with pytest.raises(KeyboardInterrupt):
        node.accept("ward")
    monkeypatch.undo()
    with pytest.raises(LedgerError):
        node.open()
    node.accept("ward")
    assert node.cannot_train("ward")


damages = st.sampled_from(["change", "delete", "cut", "roll back", "no second", "forge"])


@pytest.mark.guarantee(
    "accepting never lowers what is spent, and where rows are known to be missing all training on its records ends."
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(damages, st.integers(1, 12)), min_size=1, max_size=3), st.integers(0, 4))
def test_after_any_damage_either_all_is_counted_or_nothing_is_trained(
    tmp_path_factory: pytest.TempPathFactory, hits: list[tuple[str, int]], more: int
) -> None:
    node = Node(tmp_path_factory.mktemp("accept"))
    node.fill()
    shutil.copy(node.path, node.folder / "old.db")
    with node.open() as ledger:
        for number in (3, 4)[:more]:
            ledger.reserve("run", number)
        if more > 2:
            ledger.approve("ward", "second", study_sha256="s" * 64, rounds=3, per_round=ROUND)
            ledger.reserve("second", 1)
        truly, seen = ledger.state.spent("ward"), ledger.position_with_mac
    for kind, height in hits:
        strike(node, kind, height)
    if not examine(node.path, node.second_copy).troubles:
        return
    try:
        node.accept("ward")
    except LedgerError:
        assert not examine(node.path, node.second_copy).unbroken
        return
    with node.open() as ledger:
        counted = "ward" in ledger.state.limits and ledger.state.spent("ward") >= truly - 1e-12
    # of an older copy on a new machine the server alone can tell: then it is asked, before anything is trained
    assert counted or node.cannot_train("ward") or is_refused(node, seen)
    shutil.rmtree(node.folder)


def is_refused(node: Node, seen: LedgerPosition) -> bool:
    with node.open() as ledger:
        try:
            ledger.check_server_copy(seen)
        except LedgerError:
            return True
    return False


def strike(node: Node, kind: str, height: int) -> None:
    """One accident, or one crime."""
    if kind == "roll back":
        shutil.copy(node.folder / "old.db", node.path)
    elif kind == "no second":
        node.second_copy.unlink(missing_ok=True)
    else:
        with closing(sqlite3.connect(node.path)) as database:
            for name in ("rows_stay", "rows_last", "rows_in_order"):
                database.execute(f"DROP TRIGGER IF EXISTS {name}")
            statement = {
                "change": "UPDATE rows SET body = 'x' || body WHERE height = ?",
                "forge": "UPDATE rows SET body = replace(body, 'reserve', 'close') WHERE height = ?",
                "delete": "DELETE FROM rows WHERE height = ?",
                "cut": "DELETE FROM rows WHERE height >= ?",
            }[kind]
            database.execute(statement, (height,))
            database.commit()
