"""Describe releases, the noisy values that leave a node, by public numbers alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from shared.checks import at_least, positive, probability
from shared.errors import SettingsError
from shared.privacy.grid import GRID


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


Release = SubsampledGaussian | Gaussian


def to_dict(release: Release) -> dict[str, Any]:
    """Return a release as a plain dictionary for files."""
    return {"mechanism": release.mechanism, **asdict(release)}


def from_dict(plain: dict[str, Any]) -> Release:
    """Make a release from the plain dictionary of `to_dict`.

    Raises:
        SettingsError: unknown mechanism, missing or impossible values.
    """
    kinds = {kind.mechanism: kind for kind in (SubsampledGaussian, SubsampledDiscreteGaussian, Gaussian)}
    values = dict(plain)
    kind = kinds.get(values.pop("mechanism", ""))
    if kind is None:
        raise SettingsError(f"Expected a mechanism among {sorted(kinds)}, got {plain.get('mechanism')!r}.")
    try:
        return kind(**values)
    except TypeError:
        raise SettingsError(f"Expected the fields of {kind.__name__}, got {sorted(values)}.") from None


def times(release: Release, count: int) -> Release:
    """Repeat a release `count` times."""
    return replace(release, count=release.count * count)


def merged(history: Iterable[Release]) -> dict[tuple[float, float], int]:
    """Add up counts by (noise multiplier, sampling rate): in composition, order does not matter."""
    counts: Counter[tuple[float, float]] = Counter()
    for release in history:
        counts[release.noise_multiplier, release.sampling_rate] += release.count
    return {key: count for key, count in counts.items() if count}
