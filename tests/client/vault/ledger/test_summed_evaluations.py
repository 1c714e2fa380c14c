"""Evaluations under a secure sum in the ledger: who shares their noise, what they cost, whose survivors are signed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

from client.evidence.history import sentence
from client.operator.receipts import statement
from client.vault.ledger.approval import approve, take_roster, whole_study
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.recovery import accept
from client.vault.ledger.rows import DatasetTerms, Limit, records_row, registration_row
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.accounting import WHOLE_ORDERS, epsilon_if_colluding, epsilon_rdp
from shared.privacy.releases import LargestSide, SharedCounts, from_dict
from shared.study.declaration import Study
from tests.support.ledgers import rows_of

DELTA, SHA = 1e-5, "a" * 64
TERMS = DatasetTerms(declared_size=50, holdout=0.1, identity_version=2)
FOUR = {"nodes": 4, "threshold": 3, "colluders": 1}
TEN = {"nodes": 10, "threshold": 8, "colluders": 1}
SURVIVORS = {"kind": "survivors", "run": "r-1", "round": 48, "purpose": "evaluation", "sha256": "b" * 64}
Make = Callable[..., Study]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "second" / "head.json") as ledger:
        ledger.enter(records_row("ward", (), None) | registration_row("ward", Limit(30.0, DELTA), TERMS))
        yield ledger


@pytest.fixture
def study(make_study: Make) -> Make:
    def make(mode: str = "shared", epsilon: float = 1.0, **more: Any) -> Study:
        federation = {"rounds": 48, "typical_size": 60, "secure_sum": mode, **more}
        privacy = {"epsilon": 3.0, "delta": DELTA, "sampling_rate": 0.1}
        evaluation = {"epsilon": epsilon, "rounds": [24]}
        return make_study(federation=federation, training={"local_steps": 1}, privacy=privacy, evaluation=evaluation)

    return make


def approved(ledger: Ledger, study: Study, *, if_all_collude: float = 90.0) -> dict[str, Limit]:
    limit = {"ward": Limit(30.0, DELTA, if_all_collude)}
    approve(ledger, study, dataset="ward", run="r-1", declared=limit)
    return limit


def asked(number: int = 48, kind: str = "evaluation", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "run": "r-1", "number": number, **({"adapter_sha256": SHA} if kind == "evaluation" else more)}


def curve(sigma: float, rate: float, steps: int) -> list[float]:
    """Renyi divergence at whole orders, by an independent library."""
    accountant, gauss = RdpAccountant(WHOLE_ORDERS), dp.GaussianDpEvent(sigma)
    event = gauss if rate == 1 else dp.PoissonSampledDpEvent(rate, gauss)
    accountant.compose(dp.SelfComposedDpEvent(event, steps))
    return [float(divergence) for divergence in accountant._rdp]


@pytest.mark.parametrize("sizes", [FOUR, TEN], ids=["four", "ten"])
@pytest.mark.parametrize("epsilon", [1.0, 6.0])
def test_a_run_costs_the_larger_side_with_few_colluders_and_with_all(
    epsilon: float, sizes: dict[str, int], ledger: Ledger, study: Make
) -> None:
    """The oracle knows no shared noise: it is given what is left of it to whoever looks."""
    limit = approved(ledger, study(epsilon=epsilon), if_all_collude=1e4)
    take_roster(ledger, "r-1", SHA, **sizes, declared=limit)
    run, budget = ledger.state.run("r-1"), ledger.state.budget("ward", declared=limit)
    assert run.evaluations is not None and isinstance(run.evaluations.each, SharedCounts)
    trained, counted = run.per_round.noise_multiplier, run.evaluations.each.noise_multiplier
    for share, cost in ((1.0, budget.epsilon()), ((sizes["threshold"] - 1) ** -0.5, budget.epsilon_if_all_collude())):
        sides = curve(trained * share, 0.1, 48), curve(counted * share, 1.0, 2)
        expected, _ = compute_epsilon(WHOLE_ORDERS, [max(pair) for pair in zip(*sides, strict=True)], DELTA)
        assert cost == pytest.approx(expected, rel=2e-3)
    assert budget.epsilon() == pytest.approx(max(3.0, epsilon), rel=2e-2)


def test_where_a_record_may_stand_on_both_sides_it_pays_for_both_whoever_colludes(study: Make) -> None:
    both = whole_study_settled(study(), both_sides=True)
    one = whole_study_settled(study(), both_sides=False)
    assert epsilon_rdp([both], DELTA) > epsilon_rdp([one], DELTA)
    assert epsilon_if_colluding([both], DELTA) > epsilon_if_colluding([one], DELTA) > epsilon_rdp([one], DELTA)


def whole_study_settled(study: Study, *, both_sides: bool) -> LargestSide:
    from shared.privacy.collusion import whole_run
    from shared.privacy.noise_schedule import schedule_of
    from shared.private_evaluation.noise import all_counts

    release = schedule_of(study).release(study.total_steps).with_nodes(10, 8, 1)  # type: ignore[attr-defined]
    spending = whole_run(release, all_counts(study), both_sides=both_sides)
    assert isinstance(spending, LargestSide)
    return spending


def test_a_roster_that_leaves_too_little_noise_to_each_nodes_counts_is_refused(ledger: Ledger, study: Make) -> None:
    """Training alone would fit: 22 if all others collude, and 60 are allowed."""
    limit = approved(ledger, study(epsilon=20.0), if_all_collude=60.0)
    with pytest.raises(BudgetError, match="epsilon_if_all_collude=60"):
        take_roster(ledger, "r-1", SHA, **TEN, declared=limit)
    assert ledger.state.run("r-1").roster is None
    take_roster(ledger, "r-1", SHA, **FOUR, declared=limit)
    assert ledger.state.budget("ward", declared=limit).fits()


def test_nothing_is_evaluated_before_it_is_known_who_shares_the_noise(ledger: Ledger, study: Make) -> None:
    approved(ledger, study())
    with pytest.raises(PolicyRefusal, match="a roster before the first evaluation"):
        ledger.enter(asked())
    take_roster(ledger, "r-1", SHA, **FOUR)
    ledger.enter(asked())
    evaluations = ledger.state.run("r-1").evaluations
    assert evaluations is not None and evaluations.each.own_scale == pytest.approx(  # type: ignore[union-attr]
        evaluations.each.noise_multiplier / 2**0.5 * 2**24
    )


def test_masked_counts_have_all_the_noise_and_cost_the_same_whoever_colludes(ledger: Ledger, study: Make) -> None:
    approved(ledger, study("masked"))
    take_roster(ledger, "r-1", SHA, **TEN)
    budget = ledger.state.budget("ward")
    assert budget.epsilon_if_all_collude() == budget.epsilon() == pytest.approx(3.0, rel=1e-2)
    whole = whole_study(ledger.state, study("masked"), "ward")
    assert budget.epsilon() == epsilon_rdp([whole], DELTA)


@pytest.mark.guarantee(
    "of each round and each evaluation one set of survivors is signed, and only where this node gave its part of that "
    "sum."
)
def test_survivors_of_an_evaluation_are_those_of_no_round(ledger: Ledger, study: Make) -> None:
    approved(ledger, study("masked"))
    take_roster(ledger, "r-1", SHA, **FOUR)
    ledger.reserve("r-1", 48)
    ledger.commit("r-1", 48, b"bytes")
    with pytest.raises(PolicyRefusal, match="without survivors yet"):
        ledger.enter(SURVIVORS)  # the round has given its part, the evaluation has not
    ledger.enter(asked())
    with pytest.raises(PolicyRefusal, match="without survivors yet"):
        ledger.enter(SURVIVORS)  # reserved, and nothing released
    ledger.enter(asked(kind="evaluated", released_sha256=SHA))
    ledger.enter(SURVIVORS)
    ledger.enter(SURVIVORS | {"purpose": "training"})
    for second in (SURVIVORS, SURVIVORS | {"sha256": "c" * 64}, SURVIVORS | {"purpose": "training", "sha256": SHA}):
        with pytest.raises(PolicyRefusal, match="without survivors yet"):
            ledger.enter(second)
    assert ledger.state.run("r-1").survivors.keys() == {(48, "evaluation"), (48, "training")}


def test_an_evaluation_that_failed_has_no_survivors(ledger: Ledger, study: Make) -> None:
    approved(ledger, study())
    take_roster(ledger, "r-1", SHA, **FOUR)
    for row in (asked(), asked(kind="evaluation-failed"), asked(kind="evaluated", released_sha256=SHA)):
        ledger.enter(row)
    with pytest.raises(PolicyRefusal, match="without survivors yet"):
        ledger.enter(SURVIVORS)


def test_an_approval_says_that_its_counts_share_their_noise(ledger: Ledger, study: Make) -> None:
    approved(ledger, study())
    each = from_dict(rows_of(ledger)[-1]["evaluation"]["each"])
    assert isinstance(each, SharedCounts) and (each.count, each.sensitivity, each.settled) == (1, 1.0, False)


@pytest.mark.guarantee(
    "accepting never lowers what is spent, and where rows are known to be missing all training on its records ends."
)
def test_a_backup_from_before_the_roster_gives_nothing_of_shared_noise_back(study: Make, tmp_path: Path) -> None:
    """The rows that are gone may be those of a roster, and of all that was added to its sums."""
    path, second = tmp_path / "ledger.db", tmp_path / "second" / "head.json"
    with Ledger(path, second_copy=second) as ledger:
        ledger.enter(records_row("ward", (), None) | registration_row("ward", Limit(30.0, DELTA), TERMS))
        limit = approved(ledger, study(epsilon=6.0), if_all_collude=1e4)
    backup = path.read_bytes()
    with Ledger(path, second_copy=second) as ledger:
        take_roster(ledger, "r-1", SHA, **TEN, declared=limit)
        ledger.reserve("r-1", 1, declared=limit)
        ledger.enter(asked())
        whole = ledger.state.budget("ward")
    path.write_bytes(backup)
    second.unlink()
    accept(path, second, datasets=["ward"])
    with Ledger(path, second_copy=second) as ledger:
        after, run = ledger.state.budget("ward", earmarked=False), ledger.state.run("r-1")
        assert run.closed and run.evaluations is not None
        assert (len(run.attempts), len(run.evaluations.attempts)) == (48, 2)
        assert after.epsilon() == pytest.approx(whole.epsilon())
        assert after.epsilon_if_all_collude() >= whole.epsilon_if_all_collude()
        paid = statement(ledger, "r-1")
        assert (len(paid.rounds_paid), len(paid.evaluations_paid)) == (48, 2)


def test_the_history_tells_sums_of_rounds_and_of_evaluations_apart() -> None:
    assert sentence(SURVIVORS) == "Who is part of the sum of the evaluation after round 48 of r-1 was fixed."
    assert sentence(SURVIVORS | {"purpose": "training"}) == "Who is part of the sum of round 48 of r-1 was fixed."
