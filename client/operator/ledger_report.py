"""What the ledger says, for its operator: accounts in figures, a damaged one row by row, and the decision to go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.policy import DatasetPolicy
from client.vault.ledger.ledger import lock_of
from client.vault.ledger.recovery import Condition, accept, examine
from client.vault.ledger.state import LedgerState, Limit
from client.vault.ledger.storage import SEE_A_PERSON
from client.vault.review.review import LEDGER_PATIENCE_S, StudyReview
from shared.command_line import print_table
from shared.errors import LedgerError, SettingsError
from shared.files import write_private

DECIDE = (
    "See what can be read: fedvault-node ledger --export FILE. Restore what is missing from a backup, or go on without "
    "it: fedvault-node ledger --accept"
)


def figures(review: StudyReview) -> dict[str, Any]:
    """Every account and every run, in plain values.

    Raises:
        LedgerError: the ledger cannot be trusted; the hint says how a person decides.
    """
    found = review.folders
    try:
        with review.ledger() as ledger:
            condition = examine(found.ledger, found.second_copy)
            if condition.troubles:
                raise LedgerError(f"Expected a ledger that can be trusted, but {in_words(condition)}.", hint=DECIDE)
            state = ledger.state
            limits = {name: _limit(state, review.settings.datasets, name) for name in state.limits}
            return {
                "rows": ledger.height,
                "head": ledger.head,
                "datasets": {name: _account(state, name, limit) for name, limit in limits.items()},
                "runs": {name: _run(state, name, limits[run.dataset]) for name, run in state.runs.items()},
            }
    except LedgerError as error:
        raise LedgerError(str(error), hint=DECIDE if SEE_A_PERSON in error.hint else error.hint) from None


def show(found: Mapping[str, Any]) -> None:
    """Print what `figures` found."""
    print_table(
        [
            {
                "dataset": f"{name} (withdrawn)" if account["withdrawn"] else name,
                "spent": f"{account['spent']:.3f}",
                "promised": f"{account['promised']:.3f}",
                "left": f"{account['left']:.3f}",
                "limit": f"{account['limit']:g}",
                "δ": f"{account['delta']:g}",
                "shares records with": ", ".join(account["shares_records_with"]) or "-",
            }
            for name, account in found["datasets"].items()
        ]
    )
    print_table(
        [
            {
                "run": name,
                "dataset": run["dataset"],
                "rounds paid": f"{run['paid']} of {run['rounds']}",
                "still earmarked": run["earmarked"],
                "more rounds that would fit": run["more_rounds_fit"],
            }
            for name, run in found["runs"].items()
        ]
    )


def export(review: StudyReview, path: Path) -> int:
    """Write every row that can be read to a JSON-lines file; returns how many there are."""
    condition = _condition(review)
    lines = [row.as_dict() for row in condition.unbroken]
    lines += [{**row.as_dict(), "after_the_break": True} for row in condition.beyond]
    write_private(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return len(lines)


def consequences(review: StudyReview) -> str:
    """What accepting would mean, for somebody who has to say yes or no.

    Raises:
        SettingsError: there is nothing to accept.
    """
    condition = _condition(review)
    if not condition.troubles:
        raise SettingsError("Expected a ledger that waits for a decision, this one is whole.")
    then = "Every round that an open run still has is charged as if it had been trained, and the runs are closed."
    if condition.rows_are_missing:
        then += " Nobody knows what the missing rows have spent: these records will never be trained on again."
    return (
        f"Of the ledger, {len(condition.unbroken)} rows are unbroken and {len(condition.beyond)} more can be read: "
        f"{in_words(condition)}.\n{then} The file as it is now is set aside. "
        "A backup that holds the missing rows is better."
    )


def go_on(review: StudyReview) -> None:
    """A person has decided."""
    found = review.folders
    accept(found.ledger, found.second_copy, datasets=list(review.settings.datasets), patience_s=LEDGER_PATIENCE_S)


def in_words(condition: Condition) -> str:
    """Every trouble."""
    return " and ".join(str(trouble) for trouble in condition.troubles)


def _condition(review: StudyReview) -> Condition:
    found = review.folders
    found.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock_of(found.ledger.with_name(f"{found.ledger.name}.lock"), patience_s=LEDGER_PATIENCE_S):
        return examine(found.ledger, found.second_copy)


def _limit(state: LedgerState, policies: Mapping[str, DatasetPolicy], name: str) -> Limit:
    """The ledger's, or a stricter one of node.toml."""
    limit = state.limit(name)
    if name not in policies:
        return limit
    return Limit(min(limit.epsilon, policies[name].epsilon), min(limit.delta, policies[name].delta))


def _account(state: LedgerState, name: str, limit: Limit) -> dict[str, Any]:
    withdrawn, promised = bool(state.account(name) & state.withdrawn), state.promised(name)
    return {
        "spent": state.spent(name),
        "promised": promised,
        "left": 0.0 if withdrawn else max(0.0, limit.epsilon - promised),
        "limit": limit.epsilon,
        "delta": limit.delta,
        "shares_records_with": sorted(state.account(name) - {name}),
        "withdrawn": withdrawn,
    }


def _run(state: LedgerState, name: str, limit: Limit) -> dict[str, Any]:
    run = state.runs[name]
    withdrawn = bool(state.account(run.dataset) & state.withdrawn)
    return {
        "dataset": run.dataset,
        "rounds": run.rounds,
        "paid": len(run.attempts),
        "earmarked": 0 if withdrawn else run.earmarked,
        "more_rounds_fit": 0 if withdrawn else state.affordable_rounds(run.dataset, run.per_round, limit=limit),
    }
