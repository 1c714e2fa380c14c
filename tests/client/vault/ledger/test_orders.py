"""The Renyi orders that an account is judged at: fixed before its first release, whoever asks afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.accounting import ORDERS, best_order, epsilon_rdp
from shared.privacy.releases import SubsampledGaussian, times, to_dict
from tests.support.ledgers import register, rows_of, tie

DELTA = 1e-5
SMALL, LONG = SubsampledGaussian(8.0, 0.1, 6), SubsampledGaussian(0.66, 0.01, 100)
"""Rounds whose studies have their best orders far apart."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "second" / "head.json") as opened:
        register(opened, "ward", epsilon=8.0)
        yield opened


def approve(ledger: Ledger, run: str, per_round: SubsampledGaussian, rounds: int, dataset: str = "ward") -> None:
    ledger.approve(dataset, run, study_sha256="s" * 64, rounds=rounds, per_round=per_round)


def approve_as_before(ledger: Ledger, run: str, per_round: SubsampledGaussian, rounds: int) -> None:
    """Enter an approval as it was written before approvals named orders."""
    row = {"kind": "approve", "dataset": "ward", "run": run, "study_sha256": "s" * 64, "rounds": rounds}
    ledger.enter(row | {"per_round": to_dict(per_round)})


def rounds_at_best(limit: float, *history: SubsampledGaussian) -> int:
    """Rounds of `LONG` that fit after a history if the best order of them all decides."""
    rounds = 0
    while epsilon_rdp([*history, times(LONG, rounds + 1)], DELTA) <= limit:
        rounds += 1
    return rounds


@pytest.mark.guarantee(
    "an account is judged at Renyi orders that were fixed before its first release, so its limit holds for studies "
    "that are chosen after seeing earlier results."
)
def test_a_later_study_is_judged_at_the_order_that_the_first_approval_fixed(ledger: Ledger) -> None:
    approve(ledger, "first", SMALL, 8)
    (order,) = rows_of(ledger)[-1]["orders"]
    assert order == best_order(times(SMALL, 8), epsilon=8.0, delta=DELTA) and order in ORDERS
    ledger.reserve("first", 1)
    most = rounds_at_best(8.0, times(SMALL, 8))
    with pytest.raises(BudgetError, match=f"at the Renyi order {order:g}, which its first approval fixed"):
        approve(ledger, "second", LONG, most)
    fitting = ledger.state.budget("ward").affordable_rounds(LONG)
    assert 0 < fitting < most
    approve(ledger, "second", LONG, fitting)
    assert epsilon_rdp([times(SMALL, 8), times(LONG, fitting)], DELTA, order=order) <= 8.0
    assert rows_of(ledger)[-1]["orders"] == [order]
    for number in range(1, fitting + 1):
        ledger.reserve("second", number)


def test_an_approval_that_is_ended_before_its_first_round_fixes_nothing(ledger: Ledger) -> None:
    approve(ledger, "first", SMALL, 8)
    ledger.close_run("first")
    approve(ledger, "second", LONG, rounds_at_best(8.0))
    assert rows_of(ledger)[-1]["orders"] != rows_of(ledger)[1]["orders"]


def test_accounts_that_become_one_are_judged_at_the_orders_of_both(ledger: Ledger) -> None:
    register(ledger, "other", epsilon=8.0)
    approve(ledger, "first", SMALL, 8)
    approve(ledger, "second", LONG, 2, dataset="other")
    own, others = (rows_of(ledger)[number]["orders"] for number in (2, 3))
    tie(ledger, "ward", ["other"])
    budget = ledger.state.budget("ward")
    assert own != others and budget.orders == tuple(sorted(own + others))
    assert budget.epsilon_at_orders() == max(epsilon_rdp(budget.history, DELTA, order=order) for order in budget.orders)
    approve(ledger, "third", SMALL, 1)
    assert rows_of(ledger)[-1]["orders"] == sorted(own + others)


def test_runs_approved_before_there_were_orders_end_and_a_new_one_takes_the_first_ones_order(ledger: Ledger) -> None:
    most = rounds_at_best(8.0, times(SMALL, 8))
    approve_as_before(ledger, "first", SMALL, 8)
    approve_as_before(ledger, "second", LONG, most)
    order = best_order(times(SMALL, 8), epsilon=8.0, delta=DELTA)
    assert epsilon_rdp(ledger.state.budget("ward").history, DELTA, order=order) > 8.0
    with pytest.raises(BudgetError, match="which its first approval fixed"):
        approve(ledger, "third", SMALL, 1)
    for number in range(1, most + 1):
        ledger.reserve("second", number)
    for number in range(1, 9):
        ledger.reserve("first", number)


def test_a_new_approval_on_an_old_account_names_the_order_of_its_first_one(ledger: Ledger) -> None:
    approve_as_before(ledger, "first", SMALL, 8)
    approve_as_before(ledger, "second", LONG, 1)
    approve(ledger, "third", LONG, 1)
    assert rows_of(ledger)[-1]["orders"] == [best_order(times(SMALL, 8), epsilon=8.0, delta=DELTA)]


@pytest.mark.parametrize("orders", [[], [1.0], [float("inf")], [12.0]])
def test_a_row_cannot_name_orders_that_are_none_or_other_ones_later(ledger: Ledger, orders: list[float]) -> None:
    approve(ledger, "first", SMALL, 8)
    row = {"kind": "approve", "dataset": "ward", "run": "second", "study_sha256": "s" * 64, "rounds": 1}
    with pytest.raises(PolicyRefusal, match="Renyi orders"):
        ledger.enter(row | {"per_round": to_dict(SMALL), "orders": orders})
