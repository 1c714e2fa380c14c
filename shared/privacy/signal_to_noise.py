"""Compare a study's longest signal with its noise, to tell before any budget is spent if anything can be learned.

Everything here is public: learning rates, sigma, C, the number of trained entries, and declared sizes. One step moves a
part of the model, the head or the adapter, by

    rate x factor x (sum of clipped gradients + noise) / L

with L the divisor. Signals of steps may point the same way and add up to rate x C x (sum of factors) x B / L at most,
with B the expected batch. Noise is independent: entries have standard deviation rate x sigma x C x sqrt(sum of squared
factors) / L, and d of them are sqrt(d) times as long. A part's ratio of the two depends neither on its rate nor on the
divisor: they lengthen signal and noise alike.

The signal is an upper bound. Gradients of different records point different ways, the more so the better the model
is: measured without noise, single rounds moved the head by 0.12 (the first) down to 0.02 of the bound on images of
digits and by 0.06 to 0.02 on sentiment of texts; the whole study by 0.05 and 0.03. Studies still learn where noise is
as long as the bound, because it spreads over all directions and the signal does not. So the thresholds are measured,
not derived: four sites that learn ten digits (the scenario `digits`), where guessing is right for 0.10 of the
images and training without noise for 0.92.

| ratio of the head | 0.4 | 0.7 | 0.7 | 1.6 | 2.6 | 3.1 | 5.6 | 13 | 24 |
|---|---|---|---|---|---|---|---|---|---|
| with | ε 0.05 | ε 0.1 | 0.06 of the records | ε 0.25 | 0.2 of the records | ε 0.5 | ε 1 | ε 3 | ε 8 |
| right | 0.12 | 0.13 | 0.09 | 0.39 | 0.61 | 0.67 | 0.82 | 0.90 | 0.90 |

The ratio does not detect a task that cannot be learned, nor a learning rate that is too low or too high.
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
"""Below this ratio, over all steps and for the mean of all nodes, almost nothing is learned."""
LEARNS_LITTLE = 3.0
"""Below this ratio, a good part of what could be learned is lost."""
REACHED = 0.06
"""Share of its longest signal that an adapter is assumed to reach: the middle of what was measured for heads, above.
Chosen on data that nothing else is measured on: at ε = 1, accuracy with it and with 0.02 is 0.656 and 0.603 on images
of clothing (`fashion-choices`), 0.866 and 0.865 on Reuters R8, 0.513 and 0.516 on 20 Newsgroups (one seed each)."""
HEAD_SHARE = 0.8
"""Head's share of the squared clipping norm at which an adapter's ratio is judged."""
MOST_KEPT = 0.25
"""Largest share of the head's rate that is suggested for an adapter: on the same images at ε = 8, where noise would
allow 0.47, rates 64 and 15 reach an accuracy of 0.700, and 64 and 30 only 0.650."""
STANDS_OUT = 2.0
"""Noise on second moments, in multiples of what a direction holds on average, up to which whitening is suggested: it
reaches 1.5 to 0.4 (ε = 1 to 8) on images of clothing (`fashion-choices`), where whitening gains much, and 69 to 15 on
Reuters R8 and 20 Newsgroups, where it gains nothing."""
DROWNS = 15.0
"""Noise on second moments, in the same multiples, from which on whitening gained nothing."""
OUTPUT_NOISE = 2.5
"""Standard deviation of the noise in the difference of two outputs of a classifier at which its head learned best: on
Reuters R8 and 20 Newsgroups, as 8, 20 and 2 classes, at 4 sites of 300 to 2,800 records and ε 1, 3 and 8, where the
best of the rates 2 to 64 left 0.6 to 5.5, mostly 2 to 5."""
HIGHEST_HEAD_RATE = 64.0
"""Highest learning rate of those measurements, at a clipping norm of 1."""
WHITENED_HEAD_RATE = 2.0
"""Factor on the head's rate for whitened features: on images of clothing, LoRA and head reach an accuracy of 0.679,
0.691 and 0.693 at ε = 1 with factors of 1, 2 and 4; 0.713, 0.723 and 0.716 at ε = 3; 0.727, 0.727 and 0.720 at
ε = 8."""
CHANCE = math.exp(-18)
"""Probability that counts as never, as in the server's bound on honest updates."""


@dataclass(frozen=True)
class Part:
    """Trained tensors with one learning rate: the head, or the adapter."""

    name: str
    learning_rate: float
    """Learning rate at the study's first step."""
    dimension: int
    """Number of trained entries."""
    share: float | None = None
    """Share of the squared clipping norm if it is clipped by itself; None: all are clipped as one vector."""

    def __post_init__(self) -> None:
        positive(learning_rate=self.learning_rate, dimension=self.dimension)


@dataclass(frozen=True)
class Batch:
    """Public size of a node's batches, which are drawn anew for every step."""

    units: float
    """B, the expected number of units in a batch: sampling rate x declared size."""
    divisor: float
    """L, the divisor of a batch's sum: sampling rate x `Federation.divisor_size`."""

    def __post_init__(self) -> None:
        positive(units=self.units, divisor=self.divisor)

    @property
    def weight(self) -> float:
        """Weight beside other nodes: 1 for a batch that is divided by its own size."""
        return self.units / self.divisor


@dataclass(frozen=True)
class Steps:
    """The noisy steps of a round or of a whole study."""

    factors: Sequence[float]
    """Factor on the learning rate, step by step."""
    noise_multiplier: float
    clip_norm: float
    batch: Batch

    @property
    def spread(self) -> float:
        """Standard deviation of one entry's noise after all steps, for a learning rate of 1."""
        return self.noise_multiplier * self.clip_norm * math.sqrt(sum(f**2 for f in self.factors)) / self.batch.divisor


class Prospect(StrEnum):
    """Expectation of how much a study learns."""

    NOTHING = "nothing"
    LITTLE = "little"
    ENOUGH = "enough"
    UNKNOWN = "unknown"
    """An adapter alone, without a head: it has learned where a head would not."""


def longest_signal(parts: Sequence[Part], steps: Steps) -> float:
    """Return the largest length of an update without its noise, in parameter units.

    Guarantee: no update without noise is longer, if no batch holds more than its expected number of units.
    """
    together = [part.learning_rate for part in parts if part.share is None]
    apart = [part.learning_rate**2 * part.share for part in parts if part.share is not None]
    rate = math.hypot(max(together, default=0.0), math.sqrt(sum(apart)))
    return rate * steps.clip_norm * sum(steps.factors) * steps.batch.weight


def noise_length(parts: Sequence[Part], steps: Steps) -> float:
    """Return the root mean square length of the noise in an update, in parameter units.

    Guarantee: the mean square length of the sum of all steps' noise is the square of this.
    """
    return steps.spread * math.sqrt(sum(part.learning_rate**2 * part.dimension for part in parts))


def shortest_noise(parts: Sequence[Part], steps: Steps) -> float:
    """Return a length that the noise in an update exceeds, except with probability e^-18.

    A part's squared length is chi-squared with as many degrees of freedom as it has entries; with
    probability 1 - e^-18, none of them falls below its quantile of e^-18 / (number of parts).
    """
    chance = CHANCE / len(parts)
    lowest = sum(part.learning_rate**2 * 2 * float(gammaincinv(part.dimension / 2, chance)) for part in parts)
    return steps.spread * math.sqrt(lowest)


def ratio(parts: Sequence[Part], steps: Steps) -> float:
    """Divide the longest signal by the noise. For a single part, the learning rate does not matter."""
    return longest_signal(parts, steps) / noise_length(parts, steps)


@dataclass(frozen=True)
class AdapterStart:
    """Suggested learning rate and head's share for an adapter beside a head."""

    learning_rate: float
    head_share: float


def adapter_start(head_rate: float, adapter_ratio: float, adapter_share: float | None) -> AdapterStart:
    """Suggest a learning rate and a share of the clipping norm for an adapter, from the noise on it.

    A Wiener filter shrinks a signal S in noise N by S² / (S² + N²). With noise far above the signal, the adapter hardly
    moves, and the head gets nearly all of the norm. With little noise the adapter gets `MOST_KEPT` of the head's rate,
    and a share of 1 - `HEAD_SHARE`, the best on images of clothing (`fashion-choices`). A start, no guarantee.

    Args:
        head_rate: learning rate of the head at the study's first step.
        adapter_ratio: longest signal over noise, over all steps.
        adapter_share: share of the squared clipping norm for which this ratio holds; None: all of it.
    """
    longest_share = 1 - HEAD_SHARE
    at_share = adapter_ratio * math.sqrt(longest_share / (1.0 if adapter_share is None else adapter_share))
    power = (REACHED * at_share) ** 2
    shrunk_to = min(power / (1 + power), MOST_KEPT)
    return AdapterStart(head_rate * shrunk_to, 1 - longest_share * shrunk_to / MOST_KEPT)


def head_rate(steps: Steps, *, feature_length: float) -> float:
    """Suggest the learning rate of a classifier's head: as fast as the noise in its outputs allows.

    After all steps, the noise of an entry has standard deviation rate x spread; that of an output is larger by the
    length of its features, and that of a difference of two outputs by sqrt(2) more. A start, no guarantee.

    Args:
        steps: of the whole study, for the mean over nodes.
        feature_length: length of the features that the head reads.
    """
    output_noise = steps.spread * feature_length * math.sqrt(2)
    return min(HIGHEST_HEAD_RATE / steps.clip_norm, OUTPUT_NOISE / output_noise)


def moments_edge(steps: Steps, width: int) -> float:
    """Return the share of features' mean square length above which a direction stands out of the noise.

    Once divided by their trace, second moments have eigenvalues that add up to 1. Noise adds a symmetric matrix whose
    entries off the diagonal have standard deviation s; its eigenvalues reach up to 2 s sqrt(width) (Wigner's
    semicircle).

    Args:
        steps: of the round that measures, for the mean over nodes.
        width: number of features.
    """
    off_diagonal = steps.spread / math.sqrt(2)  # what is measured is averaged with its transpose
    trace = steps.clip_norm * sum(steps.factors) * steps.batch.weight
    return 2 * off_diagonal * math.sqrt(width) / trace


def mean_batch(batches: Sequence[Batch], *, asked: int | None = None) -> Batch:
    """Return the batch of one node whose update would have the signal and the noise of the mean over these nodes.

    Independent noise of variance 1 / L² each gives the mean of n a variance of sum(1 / L²) / n². Where every node
    divides by its own size, a small one's noise counts as much as a large one's signal.

    Args:
        batches: one of every node.
        asked: how many of the nodes a round asks, drawn at random; default: all. Signal and variance are then averages.
    """
    at_least(1, nodes=len(batches))
    count = len(batches) if asked is None else min(asked, len(batches))
    weight = sum(batch.weight for batch in batches) / len(batches)
    divisor = math.sqrt(count * len(batches) / sum(1 / batch.divisor**2 for batch in batches))
    return Batch(weight * divisor, divisor)


def prospect(study_ratio: float, *, of_head: bool = True) -> Prospect:
    """Judge the ratio of the deciding part, over all steps and for the mean over all nodes.

    The head decides where the task has one: it starts at zero, and while it is mostly noise, the adapter learns noise.
    Both limits were measured on heads. A language model's adapter took a third off its perplexity at a ratio of 1.4.
    """
    if study_ratio < LEARNS_LITTLE and not of_head:
        return Prospect.UNKNOWN
    if study_ratio < LEARNS_NOTHING:
        return Prospect.NOTHING
    return Prospect.LITTLE if study_ratio < LEARNS_LITTLE else Prospect.ENOUGH


def best_batches(batches: Sequence[Batch], *, asked: int | None = None, least: int = 1) -> list[Batch]:
    """Return the batches of the largest nodes whose mean is least noisy, largest first.

    Leaving out small nodes can help everyone.

    Args:
        batches: one of every node; nodes with equally many units are left out together or not at all.
        asked: how many nodes a round asks, as for `mean_batch`.
        least: fewest nodes to return; all are returned if there are fewer.
    """
    ordered = sorted(batches, key=lambda batch: -batch.units)
    weights = accumulate(batch.weight for batch in ordered)  # running sums: thousands of nodes take no time
    noises = accumulate(1 / batch.divisor**2 for batch in ordered)
    smaller = [*(batch.units for batch in ordered[1:]), 0.0]
    quiet = {
        count: math.sqrt(min(count, asked or count) / count / noise) * weight
        for count, (weight, noise) in enumerate(zip(weights, noises, strict=True), start=1)
        if (count >= least and smaller[count - 1] < ordered[count - 1].units) or count == len(ordered)
    }
    return ordered[: max(quiet, key=lambda count: quiet[count])]


def least_that_helps(ratio_at: Callable[[float], float], *, low: float, high: float) -> float | None:
    """Return the smallest value in [low, high], to five percent, whose ratio is enough; None if none is.

    The ratio must grow with the value.
    """
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
