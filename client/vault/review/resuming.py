"""Letting a run continue whose rounds failed or were lost, once a person has looked at the cause."""

from collections.abc import Mapping

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import LedgerState
from shared.errors import PolicyRefusal, SettingsError


def stalled(state: LedgerState, run: str) -> str:
    """Return which rounds and evaluations of a run failed or were lost, and wait for a person's look.

    Raises:
        PolicyRefusal: it was not approved.
        SettingsError: it waits for nothing.
    """
    waiting = state.run(run).waiting_in_words
    if not waiting:
        raise SettingsError(f"Expected a run that waits for you, {run} does not.")
    return waiting


def resume(ledger: Ledger, run: str, seen: str, words: Mapping[str, str] | None = None) -> str:
    """Let a run continue; returns what was entered.

    Guarantee: a run is resumed for the rounds that a person was shown, and for none that failed since.

    Args:
        ledger: open.
        run: its whole name.
        seen: what `stalled` said when the person looked.
        words: who decides, why, and from where.

    Raises:
        PolicyRefusal: other rounds wait than were shown.
    """
    now = stalled(ledger.state, run)
    if now != seen:
        raise PolicyRefusal(f"Expected to resume {seen}, now {now} wait.", hint="Look at it again, then decide.")
    approved = ledger.state.run(run)
    evaluations = () if approved.evaluations is None else set[int]().union(*approved.evaluations.unseen)
    ledger.resume(run, sorted(set[int]().union(*approved.unseen)), sorted(evaluations), **words or {})
    return f"It continues. Row {ledger.height} of the ledger."
