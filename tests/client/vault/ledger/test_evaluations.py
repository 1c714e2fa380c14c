"""A run's evaluations in the ledger: paid beside its training, attempted once, and never cheaper than they are."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting.rdp import RdpAccountant

from client.vault.ledger.account import check_room
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.recovery import accept
from client.vault.ledger.rows import DatasetTerms, Evaluations, Limit, records_row, registration_row
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.accounting import ORDERS, epsilon_rdp
from shared.privacy.releases import LargestSide, NoisyCounts, SubsampledGaussian, times
from tests.support.ledgers import rows_of

DELTA, ROUND, EACH = 1e-5, SubsampledGaussian(1.5, 0.1, 6), NoisyCounts(9.0, 1)
DEAR = NoisyCounts(2.0, 1)
TERMS = DatasetTerms(declared_size=50, holdout=0.1, identity_version=2)
Open = Callable[..., Ledger]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the same ledger again, with one dataset; whatever was open is let go first, as by a crash."""
    held: list[Ledger] = []

    def again(epsilon: float = 9.0, terms: DatasetTerms = TERMS) -> Ledger:
        while held:
            held.pop().close()
        held.append(Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "elsewhere" / "head.json"))
        if held[0].height == 0:
            held[0].enter(records_row("data", (), None) | registration_row("data", Limit(epsilon, DELTA), terms))
        return held[0]

    yield again
    while held:
        held.pop().close()


def approve(ledger: Ledger, run: str = "run", each: NoisyCounts = EACH, numbers: tuple[int, ...] = (2, 4)) -> Ledger:
    evaluations = Evaluations(each, numbers)
    ledger.approve("data", run, study_sha256="s" * 64, rounds=4, per_round=ROUND, evaluations=evaluations)
    return ledger


def asked(kind: str, number: int = 2, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "run": "run", "number": number, "adapter_sha256": "a" * 64, **more}


def oracle(*history: tuple[str, NoisyCounts | SubsampledGaussian, int]) -> list[float]:
    """Renyi divergence of releases by an independent library, order by order."""
    accountant = RdpAccountant(ORDERS)
    for _, release, count in history:
        gauss = dp.GaussianDpEvent(release.noise_multiplier)
        event = gauss if release.sampling_rate == 1 else dp.PoissonSampledDpEvent(release.sampling_rate, gauss)
        accountant.compose(event, count * release.count)
    return [float(divergence) for divergence in accountant._rdp]


@pytest.mark.guarantee(
    "a unit pays for its own side, the larger of training and evaluation at each order; where it may stand on both "
    "sides it pays for both."
)
@pytest.mark.parametrize("each", [EACH, DEAR, NoisyCounts(3.0, 1)])
def test_a_run_costs_the_larger_side_at_each_order_and_runs_add_up(each: NoisyCounts, opened: Open) -> None:
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    ledger = approve(approve(opened(60.0), each=each), "other", each=each)
    trained, evaluated = oracle(("t", ROUND, 4)), oracle(("e", each, 2))
    worst = [2 * max(sides) for sides in zip(trained, evaluated, strict=True)]
    expected, _ = compute_epsilon(ORDERS, worst, DELTA)
    assert ledger.state.budget("data").epsilon() == pytest.approx(expected, rel=1e-3)
    assert ledger.state.spent("data") == 0.0


def test_what_is_spent_grows_with_the_side_that_is_larger_so_far(opened: Open) -> None:
    ledger = approve(opened(), each=DEAR)
    ledger.reserve("run", 1)
    assert ledger.state.spent("data") == epsilon_rdp([ROUND], DELTA)
    ledger.enter(asked("evaluation"))
    sides = LargestSide(((ROUND,), (DEAR,)))
    assert ledger.state.spent("data") == epsilon_rdp([sides], DELTA) >= epsilon_rdp([DEAR], DELTA)
    ledger.reserve("run", 2)
    assert opened().state.spent("data") == epsilon_rdp([LargestSide(((times(ROUND, 2),), (DEAR,)))], DELTA)


@pytest.mark.parametrize(
    "terms",
    [
        DatasetTerms(declared_size=50, holdout=0.1, identity_version=2, split_by="page"),
        DatasetTerms(declared_size=50, holdout=0.1, identity_version=1),
        DatasetTerms("patient", declared_size=50, holdout=0.1, identity_version=1),
    ],
    ids=lambda terms: f"{terms.unit} of version {terms.identity_version} by {terms.split_by}",
)
def test_a_record_that_may_stand_on_both_sides_pays_for_both(terms: DatasetTerms, opened: Open) -> None:
    ledger = approve(opened(terms=terms))
    whole = [times(ROUND, 4), times(EACH, 2)]
    assert ledger.state.budget("data").epsilon() == pytest.approx(epsilon_rdp(whole, DELTA))
    assert ledger.state.budget("data").epsilon() > epsilon_rdp(whole[:1], DELTA)


def test_an_approval_must_fit_with_its_evaluations(opened: Open) -> None:
    alone = epsilon_rdp([times(ROUND, 4)], DELTA)
    ledger = opened(round(alone + 0.1, 6))
    with pytest.raises(BudgetError, match="a run that fits"):
        approve(ledger, each=DEAR)
    approve(ledger, each=EACH)
    assert [row["kind"] for row in rows_of(ledger)] == ["register", "approve"]
    assert rows_of(ledger)[1]["evaluation"] == {
        "each": {
            "mechanism": "discrete-gaussian-counts",
            "noise_multiplier": 9.0,
            "count": 1,
            "sensitivity": 1.0,
            "grid": 2.0**-24,
        },
        "numbers": [2, 4],
    }


def test_there_is_no_room_for_an_evaluation_that_a_stricter_limit_forbids(opened: Open) -> None:
    ledger = approve(opened(), each=DEAR)
    spent = ledger.state.budget("data", earmarked=False).epsilon_at_orders(DEAR)
    with pytest.raises(BudgetError, match="an evaluation that fits"):
        check_room(ledger.state, "run", declared={"data": Limit(spent - 0.01, DELTA)}, evaluation=True)
    check_room(ledger.state, "run", declared={"data": Limit(spent + 0.2, DELTA)}, evaluation=True)
    with pytest.raises(BudgetError, match="a round that fits"):
        ledger.check_room("run", declared={"data": Limit(epsilon_rdp([ROUND], DELTA) - 0.01, DELTA)})


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a number that was not approved": ([], asked("evaluation", 3)),
    "a second attempt": ([asked("evaluation")], asked("evaluation")),
    "counts of nothing": ([], asked("evaluated", released_sha256="r" * 64)),
    "counts twice": (
        [asked("evaluation"), asked("evaluated", released_sha256="r" * 64)],
        asked("evaluated", released_sha256="q" * 64),
    ),
    "a failure of nothing": ([], asked("evaluation-failed")),
    "a failure twice": ([asked("evaluation"), asked("evaluation-failed")], asked("evaluation-failed")),
    "after the end": ([{"kind": "close", "run": "run"}], asked("evaluation")),
    "after a withdrawal": ([{"kind": "withdraw", "dataset": "data"}], asked("evaluation")),
    "a look at nothing": ([], {"kind": "resume", "run": "run", "rounds": [], "evaluations": [2]}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_breaks_a_rule_of_evaluations_is_refused(case: str, opened: Open) -> None:
    before, row = REFUSED[case]
    ledger = approve(opened())
    for earlier in before:
        ledger.enter(earlier)
    with pytest.raises(PolicyRefusal):
        ledger.enter(row)
    assert len(rows_of(opened())) == 2 + len(before)


def test_a_run_without_evaluations_has_none(opened: Open) -> None:
    ledger = opened()
    ledger.approve("data", "run", study_sha256="s" * 64, rounds=4, per_round=ROUND)
    assert "evaluation" not in rows_of(ledger)[1]
    with pytest.raises(PolicyRefusal, match="with evaluations"):
        ledger.enter(asked("evaluation"))


def test_failed_and_lost_evaluations_stop_an_account_until_a_person_looked(opened: Open) -> None:
    ledger = approve(opened())
    ledger.enter(asked("evaluation"))
    assert ledger.state.troubles("data") == {}, "one that is lost may be a restart"
    ledger.reserve("run", 1)
    assert ledger.state.troubles("data") == {"run": [1]}, "two that are lost are not"
    assert ledger.state.run("run").waiting == ([], ["1", "evaluation 2"])
    ledger.resume("run", [1], [2])
    assert opened().state.troubles("data") == {}
    ledger = opened()
    ledger.enter(asked("evaluation", 4))
    ledger.enter(asked("evaluation-failed", 4))
    assert ledger.state.troubles("data") == {"run": []}, "one that failed is enough"


def test_going_on_without_rows_charges_every_evaluation_that_is_left(opened: Open, tmp_path: Path) -> None:
    ledger = approve(opened(), each=DEAR)
    ledger.enter(asked("evaluation"))
    ledger.close()
    (tmp_path / "elsewhere" / "head.json").unlink()
    accept(tmp_path / "node" / "ledger.db", tmp_path / "elsewhere" / "head.json", datasets=["data"])
    run = opened().state.runs["run"]
    assert run.closed and run.evaluations is not None and set(run.evaluations.attempts) == {2, 4}
