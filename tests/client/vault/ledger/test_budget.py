"""One budget decides whether something more fits, whoever asks."""

import pytest

from client.vault.ledger.budget import Budget
from client.vault.ledger.rows import Limit
from shared.errors import BudgetError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian, times

DELTA, ROUND = 1e-5, SubsampledGaussian(1.5, 0.1, 6)
FOUR_ROUNDS = epsilon_rdp([times(ROUND, 4)], DELTA)


def budget(epsilon: float, *, sharing: tuple[str, ...] = (), delta: float = DELTA) -> Budget:
    """Of an account that has spent two rounds."""
    return Budget("ward", sharing, Limit(epsilon, delta), (times(ROUND, 2),))


def test_what_reaches_the_limit_fits_and_what_passes_it_does_not() -> None:
    exactly, less = budget(FOUR_ROUNDS), budget(FOUR_ROUNDS - 1e-9)
    assert exactly.fits(ROUND, ROUND) and exactly.affordable_rounds(ROUND) == 2
    assert not less.fits(ROUND, ROUND) and less.affordable_rounds(ROUND) == 1
    exactly.check_fits(times(ROUND, 2), asked_for="a run")


def test_a_refusal_says_what_was_asked_for_what_it_comes_to_and_who_shares_the_budget() -> None:
    with pytest.raises(
        BudgetError, match=r"a run that fits into epsilon=0.5 of 'ward' \(one account with a, b\)"
    ) as raised:
        budget(0.5, sharing=("a", "b")).check_fits(times(ROUND, 2), asked_for="a run")
    assert f"to {FOUR_ROUNDS:.3f}." in str(raised.value)
    assert f"{epsilon_rdp([times(ROUND, 2)], DELTA):.3f} is spent or earmarked" in raised.value.hint


def test_a_smaller_delta_makes_the_same_history_cost_more() -> None:
    assert budget(3.0, delta=1e-7).epsilon() > budget(3.0).epsilon() > 0


def test_of_two_limits_each_figure_is_the_stricter() -> None:
    assert Limit(3.0, 1e-5).stricter(Limit(2.0, 1e-4)) == Limit(2.0, 1e-5)
    same = Limit(1.0, 1e-6)
    assert same.stricter(Limit(2.0, 1e-5)) is same and Limit(2.0, 1e-5).stricter(same) is same
