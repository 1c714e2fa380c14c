"""States what the ledger says of one run, as a receipt that is signed elsewhere."""

from datetime import UTC, datetime

from client.vault.ledger.ledger import Ledger
from shared.errors import SettingsError
from shared.evidence.receipt import EVALUATED, SHARED_NOISE, VERSION, Receipt, if_all_collude
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
    usual = VERSION if evaluations is None else EVALUATED
    numbers = () if evaluations is None else tuple(sorted(evaluations.attempts))
    return Receipt(
        fedvault_receipt=SHARED_NOISE if shared else usual,
        run=run,
        study_sha256=approved.study_sha256,
        rounds_paid=rounds,
        release=to_dict(total_release),
        epsilon=epsilon_rdp(approved.spent(), limit.delta),
        delta=limit.delta,
        ledger_height=ledger.height,
        ledger_head=ledger.head,
        issued=datetime.now(UTC).isoformat(timespec="seconds"),
        public_key="",
        epsilon_if_all_collude=if_all_collude(total_release, limit.delta) if shared else None,
        evaluation=None if evaluations is None else to_dict(times(evaluations.each, len(numbers))),
        evaluations_paid=numbers,
        pays_for_both_sides=approved.both_sides and evaluations is not None,
    )
