"""Whether anything can be learned through the noise: a study's longest signal beside its noise, before any is spent.

Everything here is public: learning rates, sigma, C, the number of trained entries, and declared sizes. One step moves a
part of the model, the head or the adapter, by

    rate x factor x (sum of clipped gradients + noise) / L

with L the divisor. Signals of steps may point the same way and add up to rate x C x (sum of factors) x B / L at most,
with B the expected batch. Noise is independent: entries have standard deviation rate x sigma x C x sqrt(sum of squared
factors) / L, and d of them are sqrt(d) times as long. Rate and divisor fall out of a part's ratio of the two: another
one makes signal and noise longer alike.

The signal is an upper bound. Gradients of different records point different ways, the more so the better the model
is: measured without noise, single rounds moved the head by 0.12 (the first) down to 0.02 of the bound on images of
digits and by 0.06 to 0.02 on sentiment of texts; the whole study by 0.05 and 0.03. Studies learn all the same where
noise is as long as the bound, because it spreads over all directions and the signal does not. So the thresholds are
measured, not derived: four sites that learn ten digits (the scenario `digits`), where guessing is right for 0.10 of the
images and training without noise for 0.92.

| ratio of the head | 0.4 | 0.7 | 0.7 | 1.6 | 2.6 | 3.1 | 5.6 | 13 | 24 |
|---|---|---|---|---|---|---|---|---|---|
| by | ε 0.05 | ε 0.1 | 0.06 of the records | ε 0.25 | 0.2 of the records | ε 0.5 | ε 1 | ε 3 | ε 8 |
| right | 0.12 | 0.13 | 0.09 | 0.39 | 0.61 | 0.67 | 0.82 | 0.90 | 0.90 |

The ratio says nothing of a task that cannot be learned, nor of a learning rate that is too low or too high.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from scipy.special import gammaincinv

from shared.checks import at_least, positive
from shared.search import halved

LEARNS_NOTHING = 1.0
"""Below this ratio, over all steps and for the mean of all nodes, next to nothing is learned."""
LEARNS_LITTLE = 3.0
"""Below this ratio a good part of what could be learned is lost."""
REACHED = 0.06
"""What of its longest signal an adapter is taken to reach: in the middle of what was measured of heads, see above.
Chosen on data that nothing else is measured on: at ε = 1, accuracy with it and with 0.02 is 0.656 and 0.603 on images
of clothing (`fashion-choices`), 0.866 and 0.865 on Reuters R8, 0.513 and 0.516 on 20 Newsgroups (one seed each)."""
HEAD_SHARE = 0.8
"""The head's share that an adapter's ratio is judged at."""
MOST_KEPT = 0.25
"""Of the head's rate, that an adapter is ever given: on the same images at ε = 8, where noise would allow 0.47, rates
64 and 15 reach an accuracy of 0.700, and 64 and 30 only 0.650."""
STANDS_OUT = 2.0
"""Times what a direction holds on average, that noise on second moments may reach where measuring them is suggested:
it reaches 1.5 to 0.4 times that (ε = 1 to 8) on images of clothing (`fashion-choices`), where whitening gains much, and
69 to 15 times on Reuters R8 and 20 Newsgroups, where nothing is gained."""
DROWNS = 15.0
"""The same, from where on nothing was gained."""
OUTPUT_NOISE = 2.5
"""Standard deviation of the noise in the difference of two outputs of a classifier at which its head learned best: on
Reuters R8 and 20 Newsgroups, as 8, 20 and 2 classes, at 4 sites of 300 to 2,800 records and ε 1, 3 and 8, where the
best of the rates 2 to 64 left 0.6 to 5.5, mostly 2 to 5."""
HIGHEST_HEAD_RATE = 64.0
"""Of those rates, at a clipping norm of 1."""
WHITENED_HEAD_RATE = 2.0
"""Times that rate, for a head on whitened features: on the same images LoRA and head reach an accuracy of 0.679, 0.691
and 0.693 at ε = 1 with 1, 2 and 4 times it, 0.713, 0.723 and 0.716 at ε = 3, 0.727, 0.727 and 0.720 at ε = 8."""
CHANCE = math.exp(-18)
"""Practically never: as in the server's bound on honest updates."""


@dataclass(frozen=True)
class Part:
    """Trained tensors that share a learning rate: the head, or the adapter."""

    name: str
    learning_rate: float
    """At the study's first step."""
    dimension: int
    """Trained entries."""
    share: float | None = None
    """Of the squared clipping norm, where it is clipped by itself; None: with the others, as one vector."""

    def __post_init__(self) -> None:
        positive(learning_rate=self.learning_rate, dimension=self.dimension)


@dataclass(frozen=True)
class Batch:
    """A node's batches, which are drawn anew for every step; for the mean over nodes see `mean_batch`."""

    units: float
    """B, how many units one is expected to have: sampling rate x declared size."""
    divisor: float
    """L, what its sum is divided by: sampling rate x `Federation.divisor_size`."""

    def __post_init__(self) -> None:
        positive(units=self.units, divisor=self.divisor)

    @property
    def weight(self) -> float:
        """What it counts beside others: 1 where it is divided by its own size."""
        return self.units / self.divisor


@dataclass(frozen=True)
class Steps:
    """Noisy steps, of a round or of a whole study."""

    factors: Sequence[float]
    """Of the learning rate, step by step."""
    noise_multiplier: float
    clip_norm: float
    batch: Batch

    @property
    def spread(self) -> float:
        """Standard deviation of one entry's noise after all steps, for a learning rate of 1."""
        return self.noise_multiplier * self.clip_norm * math.sqrt(sum(f**2 for f in self.factors)) / self.batch.divisor


class Prospect(StrEnum):
    """What a study can be expected to learn."""

    NOTHING = "nothing"
    LITTLE = "little"
    ENOUGH = "enough"


def longest_signal(parts: Sequence[Part], steps: Steps) -> float:
    """The longest that an update can be without its noise, in parameter units.

    Guarantee: no update without noise is longer, if no batch holds more than its expected number of units.
    """
    together = [part.learning_rate for part in parts if part.share is None]
    apart = [part.learning_rate**2 * part.share for part in parts if part.share is not None]
    rate = math.hypot(max(together, default=0.0), math.sqrt(sum(apart)))
    return rate * steps.clip_norm * sum(steps.factors) * steps.batch.weight


def noise_length(parts: Sequence[Part], steps: Steps) -> float:
    """Root mean square length of the noise in an update, in parameter units.

    Guarantee: the mean square length of the sum of all steps' noise is the square of this.
    """
    return steps.spread * math.sqrt(sum(part.learning_rate**2 * part.dimension for part in parts))


def shortest_noise(parts: Sequence[Part], steps: Steps) -> float:
    """A length below which the noise in an update falls with probability e^-18 at most.

    A part's squared length is chi-squared with as many degrees of freedom as it has entries; none of them falls below
    its quantile of e^-18 / (number of parts), but for e^-18.
    """
    chance = CHANCE / len(parts)
    lowest = sum(part.learning_rate**2 * 2 * float(gammaincinv(part.dimension / 2, chance)) for part in parts)
    return steps.spread * math.sqrt(lowest)


def ratio(parts: Sequence[Part], steps: Steps) -> float:
    """Longest signal over noise. For a single part it does not depend on its learning rate."""
    return longest_signal(parts, steps) / noise_length(parts, steps)


@dataclass(frozen=True)
class AdapterStart:
    """Where to start with an adapter beside a head."""

    learning_rate: float
    head_share: float


def adapter_start(head_rate: float, adapter_ratio: float, adapter_share: float | None) -> AdapterStart:
    """The head's rate, shrunk by the adapter's noise, and a share of the clipping norm for as long as that is worth it.

    Wiener's answer to noise is to shrink by S² / (S² + N²): with noise far above the signal, the adapter hardly moves,
    and then the head keeps nearly all of the norm. With little noise what it bears is the limit, and its share is then
    1 - `HEAD_SHARE`, the best on images of clothing (the data set `fashion-choices`). A start, no guarantee.

    Args:
        head_rate: of the head, at the study's first step.
        adapter_ratio: longest signal over noise, over all steps.
        adapter_share: of the squared clipping norm, that this ratio is of; None: all of it.
    """
    longest_share = 1 - HEAD_SHARE
    at_share = adapter_ratio * math.sqrt(longest_share / (1.0 if adapter_share is None else adapter_share))
    power = (REACHED * at_share) ** 2
    kept = min(power / (1 + power), MOST_KEPT)
    return AdapterStart(head_rate * kept, 1 - longest_share * kept / MOST_KEPT)


def head_rate(steps: Steps, *, feature_length: float) -> float:
    """Where to start with the head of a classifier: as fast as the noise in its answers allows.

    After all steps an entry's noise has standard deviation rate x spread, an output's is as many times as much as its
    features are long, and of a difference of two outputs it is sqrt(2) times that. A start, no guarantee.

    Args:
        steps: of the whole study, for the mean over nodes.
        feature_length: of what the head reads.
    """
    loud = steps.spread * feature_length * math.sqrt(2)
    return min(HIGHEST_HEAD_RATE / steps.clip_norm, OUTPUT_NOISE / loud)


def moments_edge(steps: Steps, width: int) -> float:
    """How much of features' mean square length a direction has to hold to stand out of the noise on their moments.

    Second moments have the sum 1 as eigenvalues, once divided by their trace. Noise adds a symmetric matrix whose
    entries deviate by s off the diagonal; its eigenvalues reach up to 2 s sqrt(width) (Wigner's semicircle).

    Args:
        steps: of the round that measures, for the mean over nodes.
        width: of the features.
    """
    off_diagonal = steps.spread / math.sqrt(2)  # what is measured is averaged with its transpose
    trace = steps.clip_norm * sum(steps.factors) * steps.batch.weight
    return 2 * off_diagonal * math.sqrt(width) / trace


def mean_batch(batches: Sequence[Batch], *, asked: int | None = None) -> Batch:
    """The batch of one node whose update would have the signal and the noise of the mean over nodes with these batches.

    Independent noise of variance 1 / L² each gives the mean of n a variance of sum(1 / L²) / n². Where every node
    divides by its own size, a small one's noise counts as much as a large one's signal.

    Args:
        batches: of every node.
        asked: how many of them a round asks, drawn at random; default: all. Signal and variance are then averages.
    """
    at_least(1, nodes=len(batches))
    count = len(batches) if asked is None else min(asked, len(batches))
    weight = sum(batch.weight for batch in batches) / len(batches)
    divisor = math.sqrt(count * len(batches) / sum(1 / batch.divisor**2 for batch in batches))
    return Batch(weight * divisor, divisor)


def prospect(study_ratio: float) -> Prospect:
    """Judge a ratio over all steps, for the mean over all nodes, of the part that decides.

    That is the head where the task has one: it starts at zero, and while it is noise the adapter learns from noise.
    """
    if study_ratio < LEARNS_NOTHING:
        return Prospect.NOTHING
    return Prospect.LITTLE if study_ratio < LEARNS_LITTLE else Prospect.ENOUGH


def best_batches(batches: Sequence[Batch], *, asked: int | None = None, least: int = 1) -> list[Batch]:
    """The largest nodes whose mean is the least noisy, largest first: leaving out small ones can help everyone.

    Args:
        batches: of every node; of several with as many units, none is left out alone.
        asked: as for `mean_batch`.
        least: how many nodes are wanted; with fewer than that, all are taken.
    """
    ordered = sorted(batches, key=lambda batch: -batch.units)
    weights = accumulate(batch.weight for batch in ordered)  # sums as they grow: thousands of nodes take no time
    noises = accumulate(1 / batch.divisor**2 for batch in ordered)
    smaller = [*(batch.units for batch in ordered[1:]), 0.0]
    quiet = {
        count: math.sqrt(min(count, asked or count) / count / noise) * weight
        for count, (weight, noise) in enumerate(zip(weights, noises, strict=True), start=1)
        if (count >= least and smaller[count - 1] < ordered[count - 1].units) or count == len(ordered)
    }
    return ordered[: max(quiet, key=lambda count: quiet[count])]


def least_that_helps(ratio_at: Callable[[float], float], *, low: float, high: float) -> float | None:
    """The smallest value in [low, high], to five percent, with which an increasing ratio is enough; None if none is."""
    if ratio_at(high) < LEARNS_LITTLE:
        return None
    _, enough = halved(
        lambda value: ratio_at(value) >= LEARNS_LITTLE,
        low,
        high,
        near=lambda low, high: high <= 1.05 * low,  # every try calibrates noise anew
        middle=lambda low, high: math.sqrt(low * high),
    )
    return enough
