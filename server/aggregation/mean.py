"""Combines updates by their plain mean.

With A the same everywhere (FFA-LoRA, Sun et al. 2024, arXiv:2403.12313), mean(B_k) A is exactly the mean of B_k A;
factors of IA3 and linear heads are as linear. Where A is trained too (FedIT, Zhang et al. 2024, arXiv:2305.05644) the
product of two means only approximates the mean of the products. Weights are uniform: whether a site's records count by
their number is decided where they are divided (`federation.typical_size`).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from server.aggregation.fixed_point import FixedPointSum
from shared.protocol.messages import Vector


class UniformMean:
    """Adds the uniform mean of the updates to the current adapter."""

    def __init__(self, length: int) -> None:
        self._sum = FixedPointSum(length)
        self.state: Mapping[str, NDArray[np.float64]] = {}
        """Nothing: every round's mean stands by itself."""

    def add(self, update: Vector) -> None:
        """Add one update."""
        self._sum.add(update)

    def result(self, current: Vector) -> Vector:
        """Return the current adapter plus the mean update, rounded to float32 once."""
        return (current.astype(np.float64) + self._sum.mean()).astype(np.float32)
