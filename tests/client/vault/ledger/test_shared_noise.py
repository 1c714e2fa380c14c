"""Two limits of an account: for as many colluders as a study allows for, and for all other nodes."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.vault.ledger.approval import approve, check_approval, take_roster
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import Limit
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.accounting import WHOLE_ORDERS, epsilon_if_colluding, epsilon_rdp
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian, SubsampledDiscreteGaussian, times
from shared.study.declaration import Study
from tests.support.ledgers import register, rows_of, tie

DELTA = 1e-5
FOUR = {"nodes": 4, "threshold": 3, "colluders": 1}
TEN = {"nodes": 10, "threshold": 8, "colluders": 1}
SHA = "a" * 64


def opened(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.db", second_copy=folder / "second" / "head.json")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        register(ledger, "ward", epsilon=3.0)
        yield ledger


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Callable[..., Study]:
    def make(mode: str | None = "shared", epsilon: float = 3.0) -> Study:
        federation: dict[str, Any] = {"rounds": 48, "typical_size": 60}
        if mode is not None:
            federation |= {"secure_sum": mode}
        privacy = {"epsilon": epsilon, "delta": DELTA, "sampling_rate": 0.1}
        return make_study(federation=federation, training={"local_steps": 1}, privacy=privacy)

    return make


def declared(if_all_collude: float | None, epsilon: float = 3.0, dataset: str = "ward") -> dict[str, Limit]:
    return {dataset: Limit(epsilon, DELTA, if_all_collude)}


def approved(ledger: Ledger, study: Study, run: str = "r-1", *, if_all_collude: float | None = 9.0) -> None:
    approve(ledger, study, dataset="ward", run=run, declared=declared(if_all_collude))


def test_without_a_second_limit_shared_noise_is_refused_and_all_else_is_not(
    ledger: Ledger, study: Callable[..., Study]
) -> None:
    with pytest.raises(BudgetError, match="leaves all noise to this node") as refusal:
        approved(ledger, study(), if_all_collude=None)
    assert "epsilon_if_all_collude" in refusal.value.hint
    for mode in (None, "masked"):
        check_approval(ledger.state, study(mode), dataset="ward", declared=declared(None))


def test_a_study_of_the_whole_limit_fits_at_the_orders_that_its_noise_was_set_by(
    ledger: Ledger, study: Callable[..., Study]
) -> None:
    approved(ledger, study())
    (row,) = (row for row in rows_of(ledger) if row["kind"] == "approve")
    assert row["orders"][0] in WHOLE_ORDERS and row["epsilon_if_all_collude"] == 9.0
    assert row["order_if_all_collude"] in WHOLE_ORDERS and row["per_round"]["nodes"] == 0
    assert ledger.state.budget("ward").epsilon() == pytest.approx(3.0, abs=0.01)


def test_an_approval_without_shared_noise_has_the_row_that_it_always_had(
    ledger: Ledger, study: Callable[..., Study]
) -> None:
    approve(ledger, study(None), dataset="ward", run="r-1", declared=declared(9.0))
    row = rows_of(ledger)[-1]
    fields = {"height", "hash", "kind", "dataset", "run", "study_sha256", "rounds", "orders", "per_round"}
    assert set(row) - {"time", "salt"} == fields
    assert set(rows_of(ledger)[0]) >= {"epsilon", "delta"} and "if_all_collude" not in rows_of(ledger)[0]


def test_no_round_is_reserved_before_it_is_known_who_shares_the_noise(
    ledger: Ledger, study: Callable[..., Study], tmp_path: Path
) -> None:
    approved(ledger, study())
    with pytest.raises(PolicyRefusal, match="a roster before the first round"):
        ledger.reserve("r-1", 1)
    take_roster(ledger, "r-1", SHA, **FOUR)
    charged = ledger.reserve("r-1", 1)
    assert charged == schedule_of(study()).release(1).with_nodes(4, 3, 1)  # type: ignore[attr-defined]
    with pytest.raises(PolicyRefusal, match="without a roster"):
        take_roster(ledger, "r-1", "b" * 64, **TEN)
    ledger.close()
    with opened(tmp_path) as again:
        run = again.state.run("r-1")
        assert run.per_round == charged and run.roster == SHA and again.state.collusion_orders["ward"] in WHOLE_ORDERS


def test_both_budgets_of_an_account_are_what_its_releases_cost(ledger: Ledger, study: Callable[..., Study]) -> None:
    approved(ledger, study(epsilon=2.0), if_all_collude=math.inf)
    take_roster(ledger, "r-1", SHA, **TEN)
    approve(ledger, study("masked", 1.0), dataset="ward", run="r-2", declared=declared(math.inf))
    budget = ledger.state.budget("ward")
    shared = times(schedule_of(study(epsilon=2.0)).release(1), 48).with_nodes(10, 8, 1)  # type: ignore[attr-defined]
    masked = times(schedule_of(study("masked", 1.0)).release(1), 48)
    assert budget.epsilon() == epsilon_rdp([shared, masked], DELTA)
    assert budget.epsilon_if_all_collude() == epsilon_if_colluding([shared, masked], DELTA) > 3 * budget.epsilon()
    assert type(masked) is SubsampledDiscreteGaussian, "masked noise is all this node's own"


def test_a_roster_that_leaves_too_little_of_each_nodes_noise_is_refused(
    ledger: Ledger, study: Callable[..., Study]
) -> None:
    """Among four nodes the own share holds 5.7, among ten 22."""
    approved(ledger, study(), if_all_collude=6.5)
    with pytest.raises(BudgetError, match=r"epsilon_if_all_collude=6\.5 of 'ward'.*22\.") as refusal:
        take_roster(ledger, "r-1", SHA, **TEN)
    assert refusal.value.hint and ledger.state.run("r-1").roster is None
    take_roster(ledger, "r-1", SHA, **FOUR)
    assert ledger.state.budget("ward").epsilon_if_all_collude() == pytest.approx(5.65, abs=0.01)


def test_the_strictest_second_limit_counts_for_ever(ledger: Ledger, study: Callable[..., Study]) -> None:
    approved(ledger, study(epsilon=0.5), "r-1", if_all_collude=9.0)
    approved(ledger, study(epsilon=0.5), "r-2", if_all_collude=math.inf)
    assert ledger.state.limits["ward"].if_all_collude == 9.0
    order = ledger.state.collusion_orders["ward"]
    approved(ledger, study(epsilon=0.5), "r-3", if_all_collude=2.0)
    assert ledger.state.limits["ward"].if_all_collude == 2.0 and ledger.state.collusion_orders["ward"] == order
    assert ledger.state.budget("ward", declared=declared(1.0)).limit.if_all_collude == 1.0


def test_local_noise_counts_in_both_budgets_once_noise_was_shared(ledger: Ledger, study: Callable[..., Study]) -> None:
    approved(ledger, study(epsilon=1.0), if_all_collude=2.0)
    take_roster(ledger, "r-1", SHA, **FOUR)
    with pytest.raises(BudgetError, match="if all other nodes collude"):
        approve(ledger, study(None, 1.5), dataset="ward", run="r-2", declared=declared(2.0))
    approve(ledger, study(None, 0.3), dataset="ward", run="r-2", declared=declared(2.0))


def test_an_account_that_was_judged_at_another_order_keeps_it(ledger: Ledger, study: Callable[..., Study]) -> None:
    approve(ledger, study(None, 1.5), dataset="ward", run="r-0", declared=declared(9.0))
    (order,) = ledger.state.budget("ward").orders
    assert order != round(order), "else this shows nothing"
    approved(ledger, study(epsilon=1.5), if_all_collude=math.inf)
    assert ledger.state.budget("ward").orders == (order,)
    assert ledger.state.budget("ward").epsilon_at_orders() <= 3.0


def test_accounts_that_become_one_keep_the_stricter_limit_and_both_orders(
    ledger: Ledger, study: Callable[..., Study]
) -> None:
    register(ledger, "clinic", epsilon=3.0)
    approved(ledger, study(epsilon=0.5), if_all_collude=20.0)
    approve(ledger, study(epsilon=0.5), dataset="clinic", run="r-2", declared=declared(2.0, dataset="clinic"))
    tie(ledger, "ward", ["clinic"])
    budget = ledger.state.budget("ward")
    assert budget.limit.if_all_collude == 2.0 and len(budget.orders_if_all_collude) == 2


def test_a_shared_release_of_another_roster_is_another_cost(ledger: Ledger, study: Callable[..., Study]) -> None:
    release = schedule_of(study()).release(48)
    assert isinstance(release, SharedGaussian)
    costs = [
        epsilon_if_colluding([release.with_nodes(n, t, c)], DELTA) for n, t, c in ((4, 3, 1), (5, 4, 1), (10, 8, 1))
    ]
    assert costs == sorted(costs) and costs[0] > 3.0
