"""Adds up a ledger's rows, and says what more of a run its records' account has room for."""

import json
from collections.abc import Iterable, Mapping

from client.vault.ledger.rows import UNDECLARED, ApprovedRun, DatasetTerms, Evaluations, Limit
from client.vault.ledger.state import LedgerState
from client.vault.ledger.storage import SEE_A_PERSON
from shared.errors import FedVaultError, LedgerError
from shared.privacy.releases import Release, Spending


def whole_run(
    state: LedgerState,
    dataset: str,
    *,
    rounds: int,
    per_round: Release,
    evaluations: Evaluations | None,
    declared: DatasetTerms = UNDECLARED,
) -> Spending:
    """Return what a run on a dataset costs as a whole: its worst case."""
    both_sides = state.on_both_sides(dataset, declared)
    run = ApprovedRun(dataset, "", rounds, per_round, evaluations=evaluations, both_sides=both_sides)
    (spent,) = run.spent(earmarked=True)
    return spent


def check_room(state: LedgerState, run: str, *, declared: Mapping[str, Limit], evaluation: bool = False) -> None:
    """Refuse a round or an evaluation of an approved run that its records' account has no room for any more.

    Raises:
        BudgetError: there is none, whatever was approved before.
        PolicyRefusal: the run is not approved.
    """
    approved = state.run(run)
    # records may have tied other spending to the account since the approval
    if approved.evaluations is None:
        budget = state.budget(approved.dataset, declared=declared, earmarked=False)
        return budget.check_fits(approved.per_round, asked_for="a round")
    # what one more costs depends on what the run has spent on either side
    budget = state.budget(approved.dataset, declared=declared, earmarked=False, without=run)
    more = approved.spent(rounds=int(not evaluation), evaluations=int(evaluation))
    return budget.check_fits(*more, asked_for="an evaluation" if evaluation else "a round")


def replayed(bodies: Iterable[str]) -> LedgerState:
    """Return what rows add up to, given as they were written.

    Raises:
        LedgerError: a row breaks a rule, or is none.
    """
    state = LedgerState()
    for height, body in enumerate(bodies, start=1):
        try:
            state.apply(json.loads(body))
        except (FedVaultError, ValueError, KeyError, TypeError):
            raise LedgerError(
                f"Expected a ledger that keeps its own rules, row {height} breaks one.", hint=SEE_A_PERSON
            ) from None
    return state
