"""What the ledger says, a damaged one, and withdrawing a dataset."""

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import times

Command = Callable[..., tuple[int, str, str]]


def test_withdraw_lists_and_ends(node: Command, study: Callable[..., str]) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    code, out, _ = node("withdraw", "ward", "--yes")
    assert code == 0 and "Nothing is unlearned" in out
    code, _, err = node("approve", study(), "--dataset", "ward", "--run", "second", "--yes")
    assert code == 5 and "withdrawn" in err
    assert "withdrawn" in node("ledger")[1]


def test_ledger_is_verified_and_exported(node: Command, study: Callable[..., str], tmp_path: Path) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    code, out, _ = node("ledger", "--verify", "--export", "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert code == 0 and out.startswith("Whole: 2 rows") and [row["kind"] for row in rows] == ["register", "approve"]
    with sqlite3.connect(tmp_path / "node" / "ledger.db") as database:
        database.executescript("DROP TRIGGER rows_stay; UPDATE rows SET body = replace(body, '3.0', '9.0');")
    database.close()
    code, _, err = node("ledger", "--verify")
    assert code == 9 and "row 1 is not what it was" in err
    assert "--export" in err and "--accept" in err and "--verify" not in err, "the hint leads on"


def test_a_damaged_ledger_is_exported_and_a_person_can_go_on(
    node: Command, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    with sqlite3.connect(tmp_path / "node" / "ledger.db") as database:
        database.executescript("DROP TRIGGER rows_stay; UPDATE rows SET body = 'torn' WHERE height = 2;")
    database.close()
    code, _, err = node("ledger", "--export", "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert code == 9 and "2 rows" in err and [row.get("kind") for row in rows] == ["register", None]
    assert rows[1]["body"] == "torn" and rows[1]["after_the_break"]
    monkeypatch.setattr("typer.confirm", lambda *_, **__: sys.exit(1))
    assert node("ledger", "--accept")[0] == 1 and node("ledger")[0] == 9, "it asks first"
    code, _, err = node("ledger", "--accept", "--yes")
    assert code == 0 and "never be trained on again" in err
    account = json.loads(node("ledger", "--json")[1])["datasets"]["ward"]
    assert account["withdrawn"] and account["left"] == 0
    for dataset in ("ward", "renamed"):
        code, _, err = node("approve", "study.toml", "--dataset", dataset, "--run", "second", "--yes")
        assert code == 5 and "withdrawn" in err
    code, _, err = node("ledger", "--accept", "--yes")
    assert code == 2 and "this one is whole" in err


def test_the_ledger_says_what_is_left_and_how_many_more_rounds_fit(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    node("approve", study(epsilon=1.0), "--dataset", "ward", "--run", "first", "--yes")
    found = json.loads(node("ledger", "--json")[1])
    account, run = found["datasets"]["ward"], found["runs"]["first"]
    assert (
        account["left"] == pytest.approx(3.0 - account["spent_and_earmarked"])
        and run["earmarked"] == run["rounds"] == 8
    )
    more = run["more_rounds_fit"]
    with Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "node-ledger-copy" / "head.json") as ledger:
        state = ledger.state
    per_round = state.runs["first"].per_round
    assert epsilon_rdp([times(per_round, 8 + more)], 1e-5) <= 3.0 < epsilon_rdp([times(per_round, 9 + more)], 1e-5)
    shown = node("ledger")[1]
    assert "left" in shown and "0 of 8" in shown and str(more) in shown
    settings = (tmp_path / "node.toml").read_text()
    (tmp_path / "node.toml").write_text(settings.replace("epsilon = 3.0", "epsilon = 1.0"))
    assert json.loads(node("ledger", "--json")[1])["runs"]["first"]["more_rounds_fit"] == 0, "node.toml is stricter"


def test_the_ledger_tells_the_spent_epsilon_that_a_limit_is_compared_with(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    node("approve", study(epsilon=1.0), "--dataset", "ward", "--run", "first", "--yes")
    with Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "node-ledger-copy" / "head.json") as ledger:
        for number in (1, 2, 3):
            ledger.reserve("first", number)
        per_round = ledger.state.runs["first"].per_round
    account = json.loads(node("ledger", "--json")[1])["datasets"]["ward"]
    (order,) = account["renyi_orders"]
    assert account["spent_at_these_orders"] == epsilon_rdp([times(per_round, 3)], 1e-5, order=order)
    assert account["spent"] == epsilon_rdp([times(per_round, 3)], 1e-5) <= account["spent_at_these_orders"]
