"""Describe releases, the noisy values that leave a node, by public numbers alone."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

from shared.checks import at_least, positive, probability
from shared.errors import SettingsError
from shared.privacy.grid import GRID, ROUNDING


@dataclass(frozen=True)
class SubsampledGaussian:
    """`count` noisy sums, each over a fresh Poisson sample of the records.

    Args:
        noise_multiplier: sigma; the noise has standard deviation sigma x sensitivity.
        sampling_rate: q, the probability with which each record joins each sum.
        count: number of sums.
        sensitivity: how far adding or removing one record moves a sum, l2.
    """

    mechanism: ClassVar[str] = "poisson-subsampled-gaussian"
    noise_multiplier: float
    sampling_rate: float
    count: int
    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        positive(noise_multiplier=self.noise_multiplier, sensitivity=self.sensitivity)
        probability(sampling_rate=self.sampling_rate)
        at_least(0, count=self.count)


@dataclass(frozen=True)
class SubsampledDiscreteGaussian(SubsampledGaussian):
    """`count` noisy sums of gradients that are rounded to a grid, with noise on the same grid (`privacy.grid`).

    Its cost is that of a `SubsampledGaussian` with the same noise multiplier; the sensitivity is C', after rounding.
    """

    mechanism: ClassVar[str] = "poisson-subsampled-discrete-gaussian"
    grid: float = GRID
    """Step of the grid, as a share of the clipping norm."""


@dataclass(frozen=True)
class SharedGaussian(SubsampledDiscreteGaussian):
    """`count` sums over many nodes that nobody can open in part, each node with a share of the noise.

    The noise multiplier is that of the noise of `honest` nodes together. Which node adds how much is a matter of the
    run's roster: before there is one, nothing is released, and the three numbers are 0.

    Args:
        nodes: n, nodes in the roster.
        threshold: t, fewest nodes whose sum is ever opened.
        colluders: c, for how many nodes beside the server the noise multiplier holds.
    """

    mechanism: ClassVar[str] = "poisson-subsampled-shared-gaussian"
    nodes: int = 0
    threshold: int = 0
    colluders: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = (self.nodes, self.threshold, self.colluders)
        if sizes != (0, 0, 0) and not 1 <= self.colluders < self.threshold <= self.nodes:
            raise SettingsError(
                f"Expected 1 <= colluders < threshold <= nodes, got {self.colluders}, {self.threshold}, {self.nodes}."
            )

    @property
    def settled(self) -> bool:
        """True once a roster says who shares the noise."""
        return self.nodes > 0

    @property
    def honest(self) -> int:
        """h = t - c, the fewest honest nodes in an opened sum."""
        if not self.settled:
            raise SettingsError("Expected the number of nodes that share the noise, got a release without a roster.")
        return self.threshold - self.colluders

    @property
    def own_multiplier(self) -> float:
        """Noise multiplier of one node's own share, sigma / sqrt(h)."""
        return self.noise_multiplier / math.sqrt(self.honest)

    @property
    def own_scale(self) -> float:
        """Scale of one node's discrete Gaussian, in steps of the grid."""
        return self.own_multiplier * (1 + ROUNDING) / self.grid

    def with_nodes(self, nodes: int, threshold: int, colluders: int) -> Self:
        """Return the release of a run whose roster is known."""
        return replace(self, nodes=nodes, threshold=threshold, colluders=colluders)

    def against(self, colluders: int) -> Self:
        """Return what everyone else sees if so many nodes collude: the noise of those who do not.

        Guarantee: more colluders never see more noise, and a node's own share is the least that they see.
        """
        at_least(0, colluders=colluders)
        shares = min(self.honest, max(1, self.threshold - colluders))
        seen = self.noise_multiplier * math.sqrt(shares / self.honest)
        return replace(self, noise_multiplier=seen).with_nodes(shares + 1, shares + 1, 1)


@dataclass(frozen=True)
class Gaussian:
    """`count` noisy sums over all records."""

    mechanism: ClassVar[str] = "gaussian"
    noise_multiplier: float
    count: int
    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        positive(noise_multiplier=self.noise_multiplier, sensitivity=self.sensitivity)
        at_least(0, count=self.count)

    @property
    def sampling_rate(self) -> float:
        """1, because every record takes part."""
        return 1.0


@dataclass(frozen=True)
class NoisyCounts(Gaussian):
    """`count` histograms over held-out units, with discrete Gaussian noise on a public grid (`private_evaluation`).

    Its cost is that of a `Gaussian` with the same noise multiplier: the grid's step is a 2^-24 of the sensitivity, and
    `privacy.grid` says why that is the same.
    """

    mechanism: ClassVar[str] = "discrete-gaussian-counts"
    grid: float = GRID
    """Step of the grid, in units."""


@dataclass(frozen=True)
class SharedCounts(SharedGaussian):
    """`count` histograms over held-out units, summed over many nodes, each of which adds a share of the noise.

    It costs what one sum of shared noise does at a sampling rate of 1. Counts lie on the grid by themselves, so nothing
    is added to their sensitivity for rounding.
    """

    mechanism: ClassVar[str] = "shared-discrete-gaussian-counts"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling_rate != 1:
            raise SettingsError(f"Expected counts over all held-out units, got sampling_rate={self.sampling_rate:g}.")

    @property
    def own_scale(self) -> float:
        """Scale of one node's discrete Gaussian, in steps of the grid."""
        return self.own_multiplier * self.sensitivity / self.grid


Release = SubsampledGaussian | Gaussian
CountsRelease = NoisyCounts | SharedCounts
"""What an evaluation releases: a node's own counts with all their noise, or its part of a sum."""


@dataclass(frozen=True)
class LargestSide:
    """Releases about units of which each stands on one side alone, such as trained on or held out.

    A unit moves the releases of its own side. So all of them together cost it, at every Renyi order, what its side
    costs, and no unit pays more than the dearest side. Units that stand on both sides pay the sum: that is one side.
    """

    sides: tuple[tuple[Release, ...], ...]

    @property
    def count(self) -> int:
        """Number of releases on all sides."""
        return sum(release.count for side in self.sides for release in side)


Spending = Release | LargestSide
"""One entry of a history: what an account has paid for."""
Repeated = TypeVar("Repeated", SubsampledGaussian, SharedGaussian, SharedCounts, Gaussian, Release, CountsRelease)


def to_dict(release: Release) -> dict[str, Any]:
    """Return a release as a plain dictionary for files."""
    return {"mechanism": release.mechanism, **asdict(release)}


def from_dict(plain: dict[str, Any]) -> Release:
    """Make a release from the plain dictionary of `to_dict`.

    Raises:
        SettingsError: unknown mechanism, missing or impossible values.
    """
    sums = (SubsampledGaussian, SubsampledDiscreteGaussian, SharedGaussian, SharedCounts)
    kinds = {kind.mechanism: kind for kind in (*sums, Gaussian, NoisyCounts)}
    values = dict(plain)
    kind = kinds.get(values.pop("mechanism", ""))
    if kind is None:
        raise SettingsError(f"Expected a mechanism among {sorted(kinds)}, got {plain.get('mechanism')!r}.")
    try:
        return kind(**values)
    except TypeError:
        raise SettingsError(f"Expected the fields of {kind.__name__}, got {sorted(values)}.") from None


def times(release: Repeated, count: int) -> Repeated:
    """Repeat a release `count` times."""
    return replace(release, count=release.count * count)


def if_colluding(history: Iterable[Spending], colluders: int | None = None) -> list[Spending]:
    """Return what a history is against so many colluders in each of its shared releases; None: against all others.

    Releases that are not shared stay as they are. Shared ones without a roster have released nothing.
    """
    seen = list[Spending]()
    for spent in history:
        if isinstance(spent, LargestSide):
            seen.append(LargestSide(tuple(tuple(_seen(side, colluders)) for side in spent.sides)))
        else:
            seen += _seen([spent], colluders)
    return seen


def has_shared(history: Iterable[Spending]) -> bool:
    """Return true if some release shares its noise with other nodes', be it on one side of a run alone."""
    return any(
        has_shared(release for side in spent.sides for release in side)
        if isinstance(spent, LargestSide)
        else isinstance(spent, SharedGaussian)
        for spent in history
    )


def _seen(releases: Iterable[Release], colluders: int | None) -> Iterator[Release]:
    """Yield what releases are against so many colluders, or against all others."""
    for release in releases:
        if not isinstance(release, SharedGaussian):
            yield release
        elif release.settled:
            yield release.against(release.nodes - 1 if colluders is None else colluders)


def merged(history: Iterable[Release]) -> dict[tuple[float, float], int]:
    """Add up counts by (noise multiplier, sampling rate): in composition, order does not matter."""
    counts: Counter[tuple[float, float]] = Counter()
    for release in history:
        counts[release.noise_multiplier, release.sampling_rate] += release.count
    return {key: count for key, count in counts.items() if count}
