"""An operator's approval of a study run, the roster of its secure sum, and its evaluations, as rows of the ledger."""

import hashlib
from collections.abc import Mapping

from client.vault.ledger.account import whole_run
from client.vault.ledger.ledger import NOBODYS, Ledger
from client.vault.ledger.rows import NOTHING_DECLARED, UNDECLARED, DatasetTerms, Evaluations, Limit, evaluations_of
from client.vault.ledger.state import LedgerState
from shared.errors import LedgerError, PolicyRefusal
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import Release, SharedGaussian, Spending
from shared.private_evaluation.noise import evaluation_release
from shared.study.declaration import Study


def approve(
    ledger: Ledger,
    study: Study,
    *,
    dataset: str,
    run: str,
    declared: Mapping[str, Limit] = NOTHING_DECLARED,
    words: Mapping[str, str] = NOBODYS,
) -> None:
    """Enter the approval of one study run: its whole worst case is earmarked.

    Args:
        ledger: held.
        study: what is approved.
        dataset: registered.
        run: of the study.
        declared: the limits of node.toml today by dataset, which may be stricter than the registered ones.
        words: who decided and why, from `decided`.

    Raises:
        BudgetError: it does not fit into what the dataset may spend.
        PolicyRefusal: the dataset is unknown or withdrawn, its delta is stricter, or the run was approved before.
    """
    check_approval(ledger.state, study, dataset=dataset, declared=declared)
    ledger.approve(
        dataset,
        run,
        study_sha256=study.sha256,
        rounds=study.federation.rounds,
        per_round=round_release(study),
        evaluations=evaluations_in(study),
        declared=declared,
        words=words,
    )


def check_approval(
    state: LedgerState, study: Study, *, dataset: str, declared: Mapping[str, Limit] = NOTHING_DECLARED
) -> None:
    """Refuse a study that the ledger has no room for as a whole.

    Raises:
        BudgetError: it does not fit into what the dataset may spend.
        PolicyRefusal: the dataset is unknown or withdrawn, or its delta is stricter.
    """
    state.check_usable(dataset)
    budget = state.budget(dataset, declared=declared)
    if study.privacy.delta > budget.limit.delta:
        raise PolicyRefusal(f"Expected privacy.delta of at most {budget.limit.delta:g}, got {study.privacy.delta:g}.")
    budget.check_fits(whole_study(state, study, dataset), asked_for="a study")


def whole_study(state: LedgerState, study: Study, dataset: str, *, terms: DatasetTerms = UNDECLARED) -> Spending:
    """Return what a study costs a dataset as a whole: training and evaluation, all rounds.

    Args:
        state: of the ledger.
        study: as declared.
        dataset: by name.
        terms: what it is about to be registered with, if it is not yet.
    """
    rounds, evaluations, per_round = study.federation.rounds, evaluations_in(study), round_release(study)
    return whole_run(state, dataset, rounds=rounds, per_round=per_round, evaluations=evaluations, declared=terms)


def round_release(study: Study) -> Release:
    """Return what one round of a study releases; shared noise is still without its roster."""
    return schedule_of(study).release(study.training.local_steps)


def evaluations_in(study: Study) -> Evaluations | None:
    """Return the evaluations that a study declares; None if it declares none."""
    return Evaluations(evaluation_release(study), study.evaluated_after) if study.evaluation else None


def take_roster(
    ledger: Ledger,
    run: str,
    sha256: str,
    *,
    nodes: int,
    threshold: int,
    colluders: int,
    declared: Mapping[str, Limit] = NOTHING_DECLARED,
) -> None:
    """Enter the one roster of a run's secure sum, if the account has room for what all other nodes could see.

    Args:
        ledger: held.
        run: approved, and without a roster.
        sha256: of the roster.
        nodes: n.
        threshold: t.
        colluders: c.
        declared: the limits of node.toml today by dataset, which may be stricter than the registered ones.

    Raises:
        BudgetError: if all other nodes colluded, the run would cost more than the account may spend then.
        PolicyRefusal: the run is not approved, is over, or has a roster.
    """
    approved = ledger.state.run(run)
    if isinstance(approved.per_round, SharedGaussian) and not approved.per_round.settled:
        settled = approved.with_nodes(nodes, threshold, colluders)
        budget = ledger.state.budget(approved.dataset, declared=declared, without=run)
        budget.check_collusion(*settled.spent(earmarked=True), asked_for="a roster")
    sizes = {"nodes": nodes, "threshold": threshold, "colluders": colluders}
    ledger.enter({"kind": "roster", "run": run, "roster_sha256": sha256, **sizes})


def commit_evaluation(ledger: Ledger, run: str, number: int, released: bytes) -> None:
    """Make released bytes of an evaluation durable, then say so in the ledger; only then may they leave."""
    ledger.outbox.keep(evaluations_of(run), number, released)
    digest = hashlib.sha256(released).hexdigest()
    ledger.enter({"kind": "evaluated", "run": run, "number": number, "released_sha256": digest})
    ledger.prune_outbox()


def released_evaluation(ledger: Ledger, run: str, number: int) -> bytes | None:
    """Return what an evaluation released, if anything; if a crash came before its row, the row is entered now.

    Raises:
        LedgerError: the kept bytes are not the ones in the ledger.
    """
    evaluations = ledger.state.run(run).evaluations
    if evaluations is None or number not in evaluations.attempts:
        return None
    released, known = ledger.outbox.find(evaluations_of(run), number), evaluations.attempts[number]
    if released is None:
        return None
    if known is None and ledger.state.is_over(run):  # nothing made of its records leaves any more
        ledger.outbox.forget(evaluations_of(run), number)
        return None
    digest = hashlib.sha256(released).hexdigest()
    if known is None:
        ledger.enter({"kind": "evaluated", "run": run, "number": number, "released_sha256": digest})
    elif known != digest:
        raise LedgerError(f"Expected the released bytes of evaluation {number} of {run!r}, got others.")
    return released
