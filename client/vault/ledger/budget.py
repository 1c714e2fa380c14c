"""Deciding whether something more fits into what an account may spend: the one place for it, without IO.

Studies are chosen after seeing what earlier ones released. So an account is judged at orders that were fixed before its
first release, by its first approval; the best of many orders would be no filter (see `shared.privacy.accounting`).
Accounts that become one by records that they share keep both orders, and everything has to fit at each.
"""

from dataclasses import dataclass

from client.vault.ledger.rows import Limit
from shared.errors import BudgetError
from shared.privacy.accounting import best_order, epsilon_rdp
from shared.privacy.releases import Release, times
from shared.search import largest

MOST_AFFORDED = 2**53
"""More rounds than this are not told apart."""


@dataclass(frozen=True)
class Budget:
    """One account's limit, beside what its records have spent and perhaps earmarked.

    Guarantee: an account is judged at Renyi orders that were fixed before its first release, so its limit holds for
    studies that are chosen after seeing earlier results.
    """

    dataset: str
    """The dataset that is asked about."""
    sharing: tuple[str, ...]
    """The other datasets of its account, which share records with it."""
    limit: Limit
    """The strictest of the account, and of node.toml where it says one."""
    history: tuple[Release, ...]
    """Everything that the account has reserved, with or without what it may still reserve."""

    orders: tuple[float, ...] = ()
    """Renyi orders that it is judged at; none before the first approval, or for runs approved before there were any."""

    def epsilon(self, *more: Release) -> float:
        """Return what the history with some more releases costs at the limit's delta, as if it was fixed in advance."""
        return epsilon_rdp([*self.history, *more], self.limit.delta)

    def epsilon_at_orders(self, *more: Release) -> float:
        """Return the epsilon that is compared with the limit: the most of those at the account's orders."""
        if not self.orders:
            return self.epsilon(*more)
        history = [*self.history, *more]
        return max(epsilon_rdp(history, self.limit.delta, order=order) for order in self.orders)

    def fits(self, *more: Release) -> bool:
        """Return true if the history with some more releases stays within the limit."""
        return self.epsilon_at_orders(*more) <= self.limit.epsilon

    def orders_with(self, release: Release) -> tuple[float, ...]:
        """Return the orders that the account is judged at from now on, if this release is its next."""
        return self.orders or (best_order(release, epsilon=self.limit.epsilon, delta=self.limit.delta),)

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
        cost, at_order = self.epsilon(*more), ""
        if cost <= self.limit.epsilon:
            orders = " and ".join(f"{order:g}" for order in self.orders)
            cost, at_order = (
                self.epsilon_at_orders(*more),
                f" at the Renyi order {orders}, which its first approval fixed",
            )
        raise BudgetError(
            f"Expected {asked_for} that fits into epsilon={self.limit.epsilon:g} of {self.dataset!r}{account}, "
            f"it brings what is spent or earmarked to {cost:.3f}{at_order}.",
            hint=f"{self.epsilon():.3f} is spent or earmarked already. "
            "Runs that are not needed can be ended: fedvault-node reject.",
        )

    def affordable_rounds(self, per_round: Release) -> int:
        """Count how many more rounds like this one fit."""
        return largest(lambda rounds: self.fits(times(per_round, rounds)), most=MOST_AFFORDED)
