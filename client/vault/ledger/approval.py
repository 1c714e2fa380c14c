"""An operator's yes, as a row of the ledger."""

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import LedgerState
from shared.errors import PolicyRefusal
from shared.privacy.noise_schedule import plan
from shared.privacy.releases import Release
from shared.study.declaration import Study


def approve(ledger: Ledger, study: Study, *, dataset: str, run: str) -> None:
    """Enter an operator's yes to one study run: its whole worst case is earmarked.

    Raises:
        BudgetError: it does not fit into what the dataset may spend.
        PolicyRefusal: the dataset is unknown or withdrawn, its delta is stricter, or the run was approved before.
    """
    per_round = check_approval(ledger.state, study, dataset=dataset)
    rounds = study.federation.rounds
    ledger.approve(dataset, run, study_sha256=study.sha256, rounds=rounds, per_round=per_round)


def check_approval(state: LedgerState, study: Study, *, dataset: str) -> Release:
    """What one round of the study releases, if these books allow a yes to it.

    Raises:
        BudgetError: it does not fit into what the dataset may spend.
        PolicyRefusal: the dataset is unknown or withdrawn, or its delta is stricter.
    """
    if dataset not in state.limits:
        raise PolicyRefusal(f"Expected a registered dataset, got {dataset!r}.")
    limit = state.limit(dataset)
    if study.privacy.delta > limit.delta:
        raise PolicyRefusal(f"Expected privacy.delta of at most {limit.delta:g}, got {study.privacy.delta:g}.")
    per_round = plan(study.privacy, steps=study.total_steps).release(study.training.local_steps)
    state.check_fits(dataset, rounds=study.federation.rounds, per_round=per_round)
    return per_round
