"""The public numbers n, t, c and h of a run, and the rule by which a node takes or refuses them.

h = t - c is how many honest vectors every opened sum holds, and among how many nodes shared noise is divided. A node
never computes its noise from a number of its own: it takes the run's, or refuses them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from shared.secure_sum.encoding import MOST_NODES
from shared.secure_sum.refusals import Refusal, SecureSumError

FEWEST_NODES = 3
FEWEST_HONEST = 2
"""A sum of one honest vector hides nothing."""


@dataclass(frozen=True)
class Thresholds:
    """How many nodes take part, how many must remain, and how many may collude with the server.

    Guarantee: numbers by which one colluder is too many, or two sets of survivors could be opened, do not exist.

    Raises:
        SecureSumError: the numbers do not fit together.
    """

    nodes: int
    """n, those in the roster."""
    threshold: int
    """t, how many must send a vector, sign and open."""
    colluders: int
    """c, how many nodes may tell the server everything they know."""

    def __post_init__(self) -> None:
        fits = (
            FEWEST_NODES <= self.nodes <= MOST_NODES
            and self.colluders >= 1
            and self.threshold <= self.nodes
            and self.honest >= FEWEST_HONEST
            and 2 * self.threshold > self.nodes + self.colluders
        )
        if not fits:
            raise SecureSumError(Refusal.NUMBERS, f"n={self.nodes}, t={self.threshold}, c={self.colluders}")

    @classmethod
    def by_default(cls, nodes: int) -> Self:
        """Return the numbers for so many nodes: c is one, or a tenth; t leaves one out, or a fifth.

        Three nodes bear no drop-out: with t = 2, two sets of survivors could be opened.
        """
        colluders = 1 if nodes <= 10 else nodes // 10
        threshold = nodes - 1 if nodes <= 5 else -(-4 * nodes // 5)
        return cls(nodes, max(threshold, (nodes + colluders) // 2 + 1), colluders)

    @property
    def honest(self) -> int:
        """h, the honest vectors in every opened sum."""
        return self.threshold - self.colluders


@dataclass(frozen=True)
class OwnPolicy:
    """What a node's operator asks of a secure run."""

    pins: Mapping[str, str] = field(default_factory=dict)
    """Owners by fingerprint of a peer's certificate key; an empty owner stands for that peer alone."""
    colluders: int = 1
    """c_policy, how many owners of pinned peers are feared; below 1 counts as 1: one curious node subtracts its own
    share of the noise."""
    smallest_cohort: int = FEWEST_NODES
    """Fewest nodes; below 3 counts as 3."""

    def feared(self, fingerprints: Iterable[str]) -> int:
        """Return c_own: how many of the peers with these certificate keys may collude.

        Those are all peers without a pin, and the nodes of the `colluders` owners that have most of them.
        """
        peers = tuple(fingerprints)
        owners = Counter(self.pins[peer] or peer for peer in peers if peer in self.pins)
        largest = sorted(owners.values(), reverse=True)[: self._colluders]
        return sum(peer not in self.pins for peer in peers) + sum(largest) + self._colluders - len(largest)

    def check(self, thresholds: Thresholds, fingerprints: Iterable[str]) -> None:
        """Refuse numbers that do not hold against everybody whom this node does not trust.

        Guarantee: a node takes part only if h <= t - c_own, 2 t > n + c_own and n >= smallest_cohort >= 3.

        Args:
            thresholds: of the run.
            fingerprints: of the certificate keys of all peers.

        Raises:
            SecureSumError: with the rule that does not hold as its code.
        """
        feared = self.feared(fingerprints)
        if thresholds.nodes < max(FEWEST_NODES, self.smallest_cohort):
            raise SecureSumError(Refusal.SMALL_COHORT, f"n={thresholds.nodes}")
        # with h = t - c and 2 t > n + c, both rules on c_own are this one
        if feared > thresholds.colluders:
            raise SecureSumError(Refusal.TOO_MANY_COLLUDERS, f"c={thresholds.colluders}")

    @property
    def _colluders(self) -> int:
        return max(1, self.colluders)
