"""Deciding whether something more fits into what an account may spend: the one place for it, without IO.

Studies are chosen after seeing what earlier ones released. So an account is judged at orders that were fixed before its
first release, by its first approval; the best of many orders would be no filter (see `shared.privacy.accounting`).
Accounts that become one by records that they share keep both orders, and everything has to fit at each.

An account with a study that shares its noise has two limits: one for as many colluders as the study allows for, and one
for the case that all other nodes collude. The second one is judged at a whole order that follows from it alone.
"""

import math
from dataclasses import dataclass

from client.vault.ledger.rows import Limit
from shared.errors import BudgetError
from shared.privacy.accounting import best_order, epsilon_if_colluding, epsilon_rdp, order_of_limit
from shared.privacy.releases import LargestSide, Release, SharedGaussian, Spending, has_shared, times
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
    history: tuple[Spending, ...]
    """Everything that the account has reserved, with or without what it may still reserve."""

    orders: tuple[float, ...] = ()
    """Renyi orders that it is judged at; none before the first approval, or for runs approved before there were any."""
    orders_if_all_collude: tuple[float, ...] = ()
    """Those of the second limit; none before the first study that shares its noise."""

    def epsilon(self, *more: Spending) -> float:
        """Return what the history with some more releases costs at the limit's delta, as if it was fixed in advance."""
        return epsilon_rdp([*self.history, *more], self.limit.delta)

    def epsilon_at_orders(self, *more: Spending) -> float:
        """Return the epsilon that is compared with the limit: the most of those at the account's orders."""
        if not self.orders:
            return self.epsilon(*more)
        history = [*self.history, *more]
        return max(epsilon_rdp(history, self.limit.delta, order=order) for order in self.orders)

    def epsilon_if_all_collude(self, *more: Spending) -> float:
        """Return what the history with some more releases costs if all other nodes collude, as if fixed in advance."""
        return epsilon_if_colluding([*self.history, *more], self.limit.delta)

    def fits(self, *more: Spending) -> bool:
        """Return true if the history with some more releases stays within both limits."""
        return self.epsilon_at_orders(*more) <= self.limit.epsilon and self.fits_if_all_collude(*more)

    def fits_if_all_collude(self, *more: Spending) -> bool:
        """Return true if the second limit holds, or nothing shares its noise. Without a roster there is no figure."""
        history, limit = [*self.history, *more], self.limit.if_all_collude
        may_share = any(isinstance(spent, SharedGaussian | LargestSide) for spent in history)
        if not may_share or not has_shared(history):
            return True
        if limit is None or math.isinf(limit):
            return limit is not None
        orders = self.orders_if_all_collude or (order_of_limit(limit, self.limit.delta),)
        return max(epsilon_if_colluding(history, self.limit.delta, order=order) for order in orders) <= limit

    def collusion_terms(self, per_round: Release) -> dict[str, float | None]:
        """Return what the approval of a run with shared noise says of the second limit; None in place of no limit."""
        limit = self.limit.if_all_collude
        if not isinstance(per_round, SharedGaussian):
            return {}
        if limit is None or math.isinf(limit):
            return {"epsilon_if_all_collude": None, "order_if_all_collude": None}
        order = order_of_limit(limit, self.limit.delta)
        return {"epsilon_if_all_collude": limit, "order_if_all_collude": order}

    def orders_with(self, release: Spending) -> tuple[float, ...]:
        """Return the orders that the account is judged at from now on, if this release is its next."""
        return self.orders or (best_order(release, epsilon=self.limit.epsilon, delta=self.limit.delta),)

    def check_fits(self, *more: Spending, asked_for: str) -> None:
        """Compare the history with some more releases with the limit.

        Args:
            more: releases beside the history.
            asked_for: what they are for, such as "a run", for the message.

        Raises:
            BudgetError: together they are above the limit.
        """
        if self.fits(*more):
            return
        self.check_collusion(*more, asked_for=asked_for)
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

    def check_collusion(self, *more: Spending, asked_for: str) -> None:
        """Compare the history with some more releases with the limit for the case that all other nodes collude.

        Raises:
            BudgetError: together they are above it, or there is none.
        """
        if self.fits_if_all_collude(*more):
            return
        limit, cost = self.limit.if_all_collude, self.epsilon_if_all_collude(*more)
        if limit is None:
            raise BudgetError(
                f"Expected {asked_for} that leaves all noise to this node, {self.dataset!r} shares none with others.",
                hint='Say what may be spent if all others collude: epsilon_if_all_collude, a number or "no-limit".',
            )
        raise BudgetError(
            f"Expected {asked_for} that fits into epsilon_if_all_collude={limit:g} of {self.dataset!r}, it brings what "
            f"is spent or earmarked to {cost:.3f} if all other nodes collude.",
            hint="More colluders that a study allows for, or fewer nodes, leave more noise to each node.",
        )

    def affordable_rounds(self, per_round: Release) -> int:
        """Count how many more rounds like this one fit."""
        return largest(lambda rounds: self.fits(times(per_round, rounds)), most=MOST_AFFORDED)
