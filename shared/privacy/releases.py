"""Typed releases: every noisy thing that leaves a node, described by public numbers only."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from shared.checks import at_least, positive, probability
from shared.errors import SettingsError


@dataclass(frozen=True)
class SubsampledGaussian:
    """`count` noisy sums, each over a fresh Poisson sample of the records.

    Args:
        noise_multiplier: sigma; the noise has standard deviation sigma x sensitivity.
        sampling_rate: q, the probability with which each record joins each sum.
        count: how many sums.
        sensitivity: how far one record moves a sum, l2, adding or removing one record.
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
        """Every record takes part."""
        return 1.0


Release = SubsampledGaussian | Gaussian


def to_dict(release: Release) -> dict[str, Any]:
    """A plain form for files."""
    return {"mechanism": release.mechanism, **asdict(release)}


def from_dict(plain: dict[str, Any]) -> Release:
    """Read the plain form back.

    Raises:
        SettingsError: unknown mechanism, missing or impossible values.
    """
    kinds = {kind.mechanism: kind for kind in (SubsampledGaussian, Gaussian)}
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
    """Counts by (noise multiplier, sampling rate): composition does not care about order."""
    counts: Counter[tuple[float, float]] = Counter()
    for release in history:
        counts[release.noise_multiplier, release.sampling_rate] += release.count
    return {key: count for key, count in counts.items() if count}
