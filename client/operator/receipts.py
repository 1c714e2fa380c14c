"""States what the ledger says of one run, as a receipt that is signed elsewhere."""

import math
from datetime import UTC, datetime

from client.vault.ledger.ledger import Ledger
from shared.errors import SettingsError
from shared.evidence.receipt import Receipt, if_all_collude, receipt_version
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SharedGaussian, SubsampledGaussian, times, to_dict


def statement(ledger: Ledger, run: str) -> Receipt:
    """Return what the ledger says of a run, unsigned: for a vault that has no key.

    Raises:
        SettingsError: the ledger does not know it.
    """
    approved = ledger.state.runs.get(run)
    if approved is None:
        names = ", ".join(ledger.state.runs) or "none"
        raise SettingsError(f"Expected a run of the ledger ({names}), got {run!r}.")
    per_round = approved.per_round
    if not isinstance(per_round, SubsampledGaussian):
        raise SettingsError(f"Expected a run of subsampled Gaussian steps, got {type(per_round).__name__}.")
    rounds, limit = tuple(sorted(approved.attempts)), ledger.state.budget(approved.dataset).limit
    total_release = times(per_round, len(rounds))
    shared, evaluations = isinstance(total_release, SharedGaussian), approved.evaluations
    numbers, spent = () if evaluations is None else tuple(sorted(evaluations.attempts)), approved.spent()
    return Receipt(
        fedvault_receipt=receipt_version(shared=shared, evaluates=evaluations is not None),
        run=run,
        study_sha256=approved.study_sha256,
        rounds_paid=rounds,
        release=to_dict(total_release),
        epsilon=epsilon_rdp(spent, limit.delta),
        delta=limit.delta,
        ledger_height=ledger.height,
        ledger_head=ledger.head,
        issued=datetime.now(UTC).isoformat(timespec="seconds"),
        public_key="",
        epsilon_if_all_collude=math.fsum(if_all_collude(one, limit.delta) for one in spent) if shared else None,
        evaluation=None if evaluations is None else to_dict(times(evaluations.each, len(numbers))),
        evaluations_paid=numbers,
        pays_for_both_sides=approved.both_sides and evaluations is not None,
    )
