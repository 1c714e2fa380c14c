"""The ledger for its operator: accounts in figures, a damaged one row by row, and the decision to continue."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.vault.ledger.budget import Budget
from client.vault.ledger.damage import LedgerDamage, examine
from client.vault.ledger.lock import ledger_lock
from client.vault.ledger.positions import WITHOUT_PROOF
from client.vault.ledger.recovery import accept
from client.vault.ledger.rows import UNDECLARED, ApprovedRun
from client.vault.ledger.state import LedgerState
from client.vault.ledger.storage import SEE_A_PERSON
from client.vault.review.node_files import LEDGER_PATIENCE_S, NodeFiles
from shared.errors import LedgerError, SettingsError
from shared.files import write_private
from shared.privacy.collusion import collusion, curve
from shared.privacy.releases import SharedGaussian, has_shared, times

DECIDE = (
    "See what can be read: fedvault-node ledger --export FILE. Restore what is missing from a backup, or go on without "
    "it: fedvault-node ledger --accept"
)


def figures(node: NodeFiles) -> dict[str, Any]:
    """Return every account and every run, in plain values.

    Raises:
        LedgerError: the ledger cannot be trusted; the hint says how a person decides.
    """
    try:
        with node.open_ledger() as ledger:
            damage = examine(node.folders.ledger, node.folders.second_copy)
            if damage.is_known:
                raise LedgerError(f"Expected a ledger that can be trusted, but {damage.in_words}.", hint=DECIDE)
            state = ledger.state
            return {
                "unproven": f"{damage.in_words}. {WITHOUT_PROOF}" if damage.troubles else "",
                "rows": ledger.height,
                "head": ledger.head,
                "datasets": {name: _account(node, state, name) for name in state.limits},
                "runs": {name: _run(node, state, name) for name in state.runs},
            }
    except LedgerError as error:
        raise LedgerError(str(error), hint=DECIDE if SEE_A_PERSON in error.hint else error.hint) from None


def accept_date(node: NodeFiles) -> None:
    """Go on after a row that a clock dated ahead: a person says that the clock of today is right."""
    with node.open_ledger() as ledger:
        ledger.accept_date()


def export(node: NodeFiles, path: Path) -> int:
    """Write every row that can be read to a JSON-lines file; returns how many there are."""
    damage = _damage(node)
    lines = [row.as_dict() for row in damage.unbroken]
    lines += [{**row.as_dict(), "after_the_break": True} for row in damage.after_break]
    write_private(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return len(lines)


def consequences(node: NodeFiles) -> str:
    """Say what accepting would mean, for somebody who has to say yes or no.

    Raises:
        SettingsError: there is nothing to accept.
    """
    damage = _damage(node)
    if not damage.troubles:
        raise SettingsError("Expected a ledger that waits for a decision, this one is whole.")
    then = "Every round that an open run still has is charged as if it had been trained, and the runs are closed."
    if damage.rows_are_missing:
        then += " Nobody knows what the missing rows have spent: these records will never be trained on again."
    return (
        f"Of the ledger, {len(damage.unbroken)} rows are unbroken and {len(damage.after_break)} more can be read: "
        f"{damage.in_words}.\n{then} The file as it is now is set aside. "
        "A backup that holds the missing rows is better."
    )


def recover(node: NodeFiles) -> None:
    """Continue without what is missing: a person has decided."""
    places, datasets = node.folders, list(node.datasets)
    accept(places.ledger, places.second_copy, datasets=datasets, patience_s=LEDGER_PATIENCE_S)


def _damage(node: NodeFiles) -> LedgerDamage:
    places = node.folders
    places.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ledger_lock(places.ledger, patience_s=LEDGER_PATIENCE_S):
        return examine(places.ledger, places.second_copy)


def _budget(node: NodeFiles, state: LedgerState, name: str, *, earmarked: bool = True) -> Budget:
    """The account's, under the ledger's limit or a stricter one of node.toml."""
    limits = {dataset.name: dataset.limits[dataset.name] for dataset in node.datasets.values()}
    return state.budget(name, declared=limits, earmarked=earmarked)


def _account(node: NodeFiles, state: LedgerState, name: str) -> dict[str, Any]:
    paid, budget = _budget(node, state, name, earmarked=False), _budget(node, state, name)
    spent = paid.epsilon()
    withdrawn, used = bool(state.account(name) & state.withdrawn), budget.epsilon()
    return {
        "spent": spent,
        "earmarked": 0.0 if withdrawn else used - spent,
        "spent_and_earmarked": used,
        "left": 0.0 if withdrawn else max(0.0, budget.limit.epsilon - used),
        "limit": budget.limit.epsilon,
        "delta": budget.limit.delta,
        "unit": state.terms.get(name, UNDECLARED).unit,
        "renyi_orders": list(budget.orders),
        "spent_at_these_orders": paid.epsilon_at_orders(),
        "shares_records_with": list(budget.sharing),
        "withdrawn": withdrawn,
        **_if_all_collude(budget),
    }


def _if_all_collude(budget: Budget) -> dict[str, Any]:
    """Return the second budget of an account that shares noise with other nodes; nothing for any other."""
    if not has_shared(budget.history):
        return {}
    limit = budget.limit.if_all_collude
    return {
        "epsilon_if_all_collude": budget.epsilon_if_all_collude(),
        "limit_if_all_collude": None if limit is None or math.isinf(limit) else limit,
    }


def _noise_shared(run: ApprovedRun, delta: float) -> dict[str, Any]:
    """Return what a run with shared noise promises over all its rounds, by the number of nodes that collude."""
    if not isinstance(run.per_round, SharedGaussian) or not run.per_round.settled:
        return {}
    rounds, evaluations = times(run.per_round, run.rounds), run.evaluations
    counts = None if evaluations is None else times(evaluations.each, len(evaluations.numbers))
    return {
        "shares_noise": collusion(rounds, delta, counts, both_sides=run.both_sides).in_words,
        "epsilon_by_colluders": [list(point) for point in curve(rounds, delta, counts, both_sides=run.both_sides)],
    }


def _evaluated(run: ApprovedRun) -> dict[str, Any]:
    """Return what is approved of a run's evaluations, and what is paid; nothing for a run without any."""
    if run.evaluations is None:
        return {}
    return {
        "evaluations": list(run.evaluations.numbers),
        "evaluations_paid": sorted(run.evaluations.attempts),
        "pays_for_both_sides": run.both_sides,
    }


def _run(node: NodeFiles, state: LedgerState, name: str) -> dict[str, Any]:
    run = state.runs[name]
    withdrawn = bool(state.account(run.dataset) & state.withdrawn)
    budget = _budget(node, state, run.dataset)
    more = 0 if withdrawn else budget.affordable_rounds(run.per_round)
    one_more = more + 1
    return {
        "dataset": run.dataset,
        "rounds": run.rounds,
        "paid": len(run.attempts),
        "earmarked": 0 if withdrawn else run.earmarked,
        "decisions": [asdict(decision) for decision in state.decisions.get(name, ())],
        "more_rounds_fit": more,
        "epsilon_with_them": budget.epsilon_at_orders(*([times(run.per_round, more)] if more else [])),
        "epsilon_with_one_more": budget.epsilon_at_orders(times(run.per_round, one_more)),
        **_noise_shared(run, budget.limit.delta),
        **_evaluated(run),
        **({} if not run.roster else {"roster": run.roster, "survivors_signed": sorted(run.survivors)}),
    }
