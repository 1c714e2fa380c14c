"""Two ways to combine updates and one to deal rows out, as a package of its own: copy this folder and change it."""

import numpy as np


class TrimmedMean:
    """Leaves the smallest and the largest value out, number by number, and takes the mean of the others."""

    def __init__(self, length, state):
        self._updates = []

    def add(self, update):
        """Take one node's update: float32, as long as the adapter."""
        self._updates.append(update)

    def result(self, current):
        """Return the next adapter."""
        ordered = np.sort(self._updates, axis=0)
        kept = ordered[1:-1] if len(ordered) > 2 else ordered
        return current + kept.mean(axis=0)


class SlowStart:
    """Goes a quarter, a half and three quarters of the way in the first three rounds, and all of it later."""

    needs_only_the_mean = True  # so it may stand beside a secure sum, which opens nothing else

    def __init__(self, length, state):
        self._total, self._count = np.zeros(length), 0
        self._rounds = float(state.get("rounds", np.zeros(1))[0])

    def add(self, update):
        """Take one node's update, or the mean that a secure sum opened."""
        self._total += update
        self._count += 1

    def result(self, current):
        """Return the next adapter."""
        self._rounds += 1
        return current + min(1.0, self._rounds / 4) * self._total / self._count

    def state(self):
        """Return what the next round begins with: it stands in the checkpoint."""
        return {"rounds": np.array([self._rounds])}


def by_length(table, *, column, sites, seed, label_column, unit_column):
    """Name the site of each row: the shortest texts lie at the first one, the longest at the last."""
    ranks = table[column].str.len().rank(method="first")
    return [f"length-{int((rank - 1) * sites // len(table))}" for rank in ranks]
