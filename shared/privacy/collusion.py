"""What shared noise promises against one colluder, several, and all: figures for operators, receipts and cards."""

from dataclasses import dataclass

from shared.errors import SettingsError
from shared.privacy.accounting import epsilon_if_colluding, epsilon_rdp
from shared.privacy.in_words import if_all_collude
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import CountsRelease, LargestSide, SharedCounts, SharedGaussian, Spending
from shared.secure_sum.thresholds import FEWEST_NODES, Thresholds
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes

USUAL_NODES = (4, 10, 30, 100)
"""Numbers of nodes for which figures are shown before it is known how many take part."""
SHOWN = 6
"""Points of a curve that are shown."""


@dataclass(frozen=True)
class Collusion:
    """The promise of one run with shared noise, by who colludes."""

    sizes: Thresholds
    epsilon: float
    """While at most `sizes.colluders` nodes pool what they know with the server."""
    epsilon_if_all_collude: float
    """If all other nodes do."""

    @property
    def in_words(self) -> str:
        """One sentence for somebody who decides."""
        nodes, colluders = self.sizes.nodes, self.sizes.colluders
        return (
            f"With {nodes} nodes, of which {self.sizes.threshold} have to be in every sum, epsilon {self.epsilon:.3g} "
            f"holds while at most {colluders} other node{'s' if colluders > 1 else ''} and the server pool what they "
            f"know; if all others do, {if_all_collude(self.epsilon_if_all_collude)}."
        )


def collusion(
    release: SharedGaussian, delta: float, counts: CountsRelease | None = None, *, both_sides: bool = False
) -> Collusion:
    """Return what all releases of a run promise, once its roster is known.

    Args:
        release: of all rounds, with the roster's numbers.
        delta: of the dataset.
        counts: of all evaluations; they take the roster's numbers from `release`.
        both_sides: one unit may be trained on and held out, and so pays for both.
    """
    sizes = Thresholds(release.nodes, release.threshold, release.colluders)
    total = whole_run(release, counts, both_sides=both_sides)
    return Collusion(sizes, epsilon_rdp([total], delta), epsilon_if_colluding([total], delta))


def whole_run(release: SharedGaussian, counts: CountsRelease | None, *, both_sides: bool = False) -> Spending:
    """Return what training and evaluations of a run cost a unit: its own side, or both."""
    if counts is None:
        return release
    if isinstance(counts, SharedCounts):
        counts = counts.with_nodes(release.nodes, release.threshold, release.colluders)
    return LargestSide(((release, counts),) if both_sides else ((release,), (counts,)))


def possible(
    study: Study, *, delta: float, counts: CountsRelease | None = None, both_sides: bool = False
) -> list[Collusion]:
    """Return what a study with shared noise would promise, by the number of nodes that come to take part.

    Args:
        study: as declared; empty for one that shares no noise.
        delta: of the dataset.
        counts: of all its evaluations.
        both_sides: one unit may be trained on and held out, and so pays for both.
    """
    release, fewest = schedule_of(study).release(study.total_steps), max(FEWEST_NODES, study.federation.quorum)
    if not isinstance(release, SharedGaussian):
        return []
    promises = []
    for nodes in sorted({fewest, *(number for number in USUAL_NODES if number > fewest)}):
        if (sizes := _sizes(study, nodes)) is not None:
            with_nodes = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
            promises.append(collusion(with_nodes, delta, counts, both_sides=both_sides))
    return promises


def curve(
    release: SharedGaussian, delta: float, counts: CountsRelease | None = None, *, both_sides: bool = False
) -> list[tuple[int, float]]:
    """Return epsilon by the number of colluders, from what the run allows for to all others: a few points of it.

    The arguments are those of `collusion`.
    """
    total = whole_run(release, counts, both_sides=both_sides)
    first, last = release.colluders, release.nodes - 1
    numbers = sorted({first + round((last - first) * point / (SHOWN - 1)) for point in range(SHOWN)})
    return [(number, epsilon_if_colluding([total], delta, colluders=number)) for number in numbers]


def _sizes(study: Study, nodes: int) -> Thresholds | None:
    try:
        return sum_sizes(nodes, study.federation)
    except SettingsError:
        return None
