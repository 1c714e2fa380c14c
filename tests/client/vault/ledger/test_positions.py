"""What the server says of a node's ledger: believed where the node itself has said it, and nowhere else."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.settings import NodeSettings, folders
from client.vault.ledger.damage import Trouble, examine
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.positions import is_ours, key_of, read_position, with_mac, write_position
from shared.errors import LedgerError, SettingsError
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import NO_MAC, NO_POSITION, LedgerPosition
from tests.support.ledgers import register, rows_of

HEXADECIMAL = st.text("0123456789abcdef", min_size=64, max_size=64)


def opened(folder: Path, now: datetime | None = None) -> Ledger:
    second_copy = folder / "copy" / "head.json"
    if now is None:
        return Ledger(folder / "ledger.db", second_copy=second_copy)
    return Ledger(folder / "ledger.db", second_copy=second_copy, now=lambda: now)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        register(ledger, "ward", epsilon=3.0)
        ledger.approve("ward", "run", study_sha256="s" * 64, rounds=4, per_round=SubsampledGaussian(1.5, 0.1, 6))
        yield ledger


def hint_about(ledger: Ledger, position: LedgerPosition) -> str:
    with pytest.raises(LedgerError) as raised:
        ledger.check_server_copy(position)
    return f"{raised.value} {raised.value.hint}"


@pytest.mark.guarantee("what the server echoes without this node's MAC makes nobody continue without rows.")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 10**12 - 1), head=HEXADECIMAL, mac=HEXADECIMAL.filter(lambda mac: mac != NO_MAC))
def test_an_echo_with_another_mac_is_not_ours_and_leaves_no_trace(
    ledger: Ledger, tmp_path: Path, height: int, head: str, mac: str
) -> None:
    for forged in (LedgerPosition(height, head, mac), replace(ledger.position, mac=mac)):
        said = hint_about(ledger, forged)
        assert "the server's echo is not ours" in said and "fedvault-node ledger" not in said
    assert examine(ledger.path, tmp_path / "copy" / "head.json").troubles == ()
    ledger.check_server_copy(ledger.position_with_mac)


@pytest.mark.guarantee("what the server echoes without this node's MAC makes nobody continue without rows.")
def test_an_echo_without_a_mac_may_ask_a_person_and_never_suggests_to_continue(ledger: Ledger, tmp_path: Path) -> None:
    said = hint_about(ledger, LedgerPosition(10**9, "a" * 64))
    assert "proves nothing" in said and "--accept" not in said and "--verify" not in said
    damage = examine(ledger.path, tmp_path / "copy" / "head.json")
    assert damage.troubles == (Trouble.SERVER_COPY_UNPROVEN,) and not damage.is_known
    ledger.check_server_copy(ledger.position)
    assert examine(ledger.path, tmp_path / "copy" / "head.json").troubles == ()


@pytest.mark.guarantee("a position that bears this node's MAC was reached by a ledger with this node's key.")
def test_a_position_of_another_node_or_another_row_is_not_ours(ledger: Ledger, tmp_path: Path) -> None:
    sent = ledger.position_with_mac
    with opened(tmp_path / "other") as other:
        register(other, "ward", epsilon=3.0)
        theirs = other.position_with_mac
    assert is_ours(sent, ledger.path, known=None) and not is_ours(theirs, ledger.path, known=None)
    for moved in (replace(sent, height=1), replace(sent, head="0" * 64), replace(sent, mac=NO_MAC)):
        assert not is_ours(moved, ledger.path, known=None)


def test_what_this_node_said_of_its_rows_cannot_be_taken_back_by_the_server(ledger: Ledger) -> None:
    older, ahead = ledger.position_with_mac, with_mac(LedgerPosition(99, "a" * 64), ledger.path, known=None)
    assert "fedvault-node ledger --verify" in hint_about(ledger, ahead)
    for said in (NO_POSITION, older, replace(older, mac=NO_MAC), LedgerPosition(98, "b" * 64)):
        assert "row 99" in hint_about(ledger, said)


def test_the_key_lies_where_the_record_index_has_its_own() -> None:
    places = folders(Path("node.toml"), NodeSettings())
    assert key_of(places.ledger) == places.records[1]


def test_a_position_is_kept_with_its_mac_and_one_from_before_has_none(tmp_path: Path) -> None:
    position = LedgerPosition(3, "a" * 64, "b" * 64)
    write_position(tmp_path / "echo.json", position)
    assert read_position(tmp_path / "echo.json") == position
    (tmp_path / "echo.json").write_text('{"height": 3, "head": "' + "a" * 64 + '"}')
    assert read_position(tmp_path / "echo.json") == replace(position, mac=NO_MAC)


def test_a_row_that_was_dated_ahead_locks_the_ledger_until_a_person_accepts_its_date(tmp_path: Path) -> None:
    today = datetime.now(UTC)
    with opened(tmp_path, today + timedelta(days=400)) as ledger:
        register(ledger, "ward", epsilon=3.0)
    with opened(tmp_path, today) as ledger:
        with pytest.raises(LedgerError, match="Expected a clock") as raised:
            register(ledger, "other", epsilon=3.0)
        assert "fedvault-node ledger --accept-date" in raised.value.hint
        ledger.accept_date()
        register(ledger, "other", epsilon=3.0)
        assert [(row["kind"], row["height"]) for row in rows_of(ledger)] == [
            ("register", 1),
            ("date", 2),
            ("register", 3),
        ]
        assert rows_of(ledger)[1]["dated"] == rows_of(ledger)[0]["time"] > rows_of(ledger)[1]["time"]
    with opened(tmp_path, today) as ledger, pytest.raises(SettingsError, match="dated ahead"):
        ledger.accept_date()
