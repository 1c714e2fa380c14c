"""Deciding whether something more fits into what an account may spend: the one place for it, without IO."""

from dataclasses import dataclass

from client.vault.ledger.rows import Limit
from shared.errors import BudgetError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import Release, times
from shared.search import largest

MOST_AFFORDED = 2**53
"""More rounds than this are not told apart."""


@dataclass(frozen=True)
class Budget:
    """One account's limit, beside what its records have spent and perhaps earmarked."""

    dataset: str
    """The dataset that is asked about."""
    sharing: tuple[str, ...]
    """The other datasets of its account, which share records with it."""
    limit: Limit
    """The strictest of the account, and of node.toml where it says one."""
    history: tuple[Release, ...]
    """Everything that the account has reserved, with or without what it may still reserve."""

    def epsilon(self, *more: Release) -> float:
        """Return the epsilon of the history with some more releases, at the limit's delta."""
        return epsilon_rdp([*self.history, *more], self.limit.delta)

    def fits(self, *more: Release) -> bool:
        """Return true if the history with some more releases stays within the limit."""
        return self.epsilon(*more) <= self.limit.epsilon

    def check_fits(self, *more: Release, asked_for: str) -> None:
        """Compare the history with some more releases with the limit.

        Args:
            more: releases beside the history.
            asked_for: what they are for, such as "a run", for the message.

        Raises:
            BudgetError: together they are above the limit.
        """
        if self.fits(*more):
            return
        account = f" (one account with {', '.join(self.sharing)})" if self.sharing else ""
        raise BudgetError(
            f"Expected {asked_for} that fits into epsilon={self.limit.epsilon:g} of {self.dataset!r}{account}, "
            f"it brings what is spent or earmarked to {self.epsilon(*more):.3f}.",
            hint=f"{self.epsilon():.3f} is spent or earmarked already. "
            "Runs that are not needed can be ended: fedvault-node reject.",
        )

    def affordable_rounds(self, per_round: Release) -> int:
        """Count how many more rounds like this one fit."""
        return largest(lambda rounds: self.fits(times(per_round, rounds)), most=MOST_AFFORDED)
