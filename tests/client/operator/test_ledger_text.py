"""The ledger's sums add up to the last digit, and one line says why so many more rounds fit."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.operator.ledger_text import show, sum_of, why
from client.vault.ledger.budget import MOST_AFFORDED

RUN = {"dataset": "ward", "rounds": 8, "paid": 2, "earmarked": 6, "decisions": [], "epsilon_with_one_more": 3.0123}
MORE = {"more_rounds_fit": 12, "epsilon_with_them": 2.97}


def account(**changes: Any) -> dict[str, Any]:
    usual = {"spent": 0.5, "earmarked": 1.25, "left": 1.25, "limit": 3.0, "delta": 1e-5, "unit": "record"}
    return usual | {"shares_records_with": [], "withdrawn": False} | changes


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0.001, 100).map(lambda limit: float(f"{limit:.6g}")))
def test_spent_earmarked_and_left_make_the_limit_and_nothing_is_rounded_down(
    spent: float, earmarked: float, limit: float
) -> None:
    figures = sum_of(account(spent=spent, earmarked=earmarked, limit=limit))
    assert figures.spent + figures.earmarked + figures.left == figures.limit == Decimal(str(limit))
    assert figures.spent >= Decimal(f"{spent:.9f}") and figures.earmarked >= 0
    assert float(figures.spent + figures.earmarked) >= spent + earmarked - 1e-8


def test_the_sum_is_printed_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    accounts = {"ward": account(), "old": account(withdrawn=True), "over": account(limit=1.0)}
    show({"datasets": accounts, "runs": {"r-1": RUN | MORE}})
    said = " ".join(capsys.readouterr().out.split())
    assert "dataset spent + earmarked + left = limit" in said and "ward 0.500 1.250 1.250 3.000" in said
    assert "old (withdrawn) 0.500 1.250 - 3.000" in said
    assert "over: 0.750 more is spent and earmarked than node.toml allows today" in said
    assert "ward, spent so far: In plain words, epsilon 0.5 means" in said and "ward, at its limit: In plain" in said
    assert "r-1: 12 more rounds fit: epsilon is then 2.970 of 3; with one more, 3.012." in said


def test_a_run_with_a_secure_sum_says_its_roster_and_the_rounds_whose_survivors_were_signed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rosters = {"roster": "ab" * 32, "survivors_signed": [(1, "training"), (3, "training")]}
    none_yet = rosters | {"survivors_signed": []}
    show({"datasets": {"ward": account()}, "runs": {"r-1": RUN | MORE | rosters, "r-2": RUN | MORE | none_yet}})
    said = " ".join(capsys.readouterr().out.split())
    assert "r-1: It takes part in a secure sum with roster abababababababab; survivors signed for: 1, 3." in said
    assert "r-2: It takes part in a secure sum with roster abababababababab" in said
    assert "survivors signed for: no round yet." in said


@pytest.mark.parametrize(
    ("run", "account_changes", "line"),
    [
        (MORE | {"more_rounds_fit": 1}, {}, "r-1: one more round fits: epsilon is then 2.970 of 3; with one more,"),
        (
            MORE | {"more_rounds_fit": 0},
            {},
            "no more rounds fit: one more would bring epsilon to 3.012, the limit is 3.",
        ),
        (MORE, {"withdrawn": True}, "r-1: no more rounds, its records are withdrawn."),
        (MORE | {"more_rounds_fit": MOST_AFFORDED}, {}, "any number of them fits."),
    ],
)
def test_one_line_says_why(run: dict[str, Any], account_changes: dict[str, Any], line: str) -> None:
    assert line in why("r-1", RUN | run, account(**account_changes))


def test_both_budgets_stand_beside_each_other_where_noise_is_shared(capsys: pytest.CaptureFixture[str]) -> None:
    shared = RUN | MORE | {"shares_noise": "With 4 nodes, …", "epsilon_by_colluders": [[1, 3.0], [2, 4.11], [3, 5.65]]}
    second = {"epsilon_if_all_collude": 438.4, "limit_if_all_collude": None}
    show({"datasets": {"ward": account(**second)}, "runs": {"r-1": shared}})
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "all other nodes of studies that share their noise collude: practically no protection: epsilon 439 of"
        in printed
    )
    assert "r-1: With 4 nodes, … Epsilon by the number of nodes that collude: 1: 3, 2: 4.11, 3: 5.65." in printed
