"""Say what choosing among settings on real records would cost: each one that is tried is a private run of its own."""

from collections.abc import Sequence
from typing import NamedTuple

from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes


class TuningCost(NamedTuple):
    """The cost to one unit if a federation tried all settings of a sweep, each once, on the same records."""

    settings: int
    epsilon: float
    delta: float
    largest: float
    """Epsilon of the most expensive setting alone."""

    def sentence(self) -> str:
        """Say it in words."""
        if self.settings == 1:
            return "A single setting was run: nothing was chosen that would cost more than its own ε."
        return (
            f"Choosing among these on real records would take {self.settings} private runs on the same records: "
            f"ε = {self.epsilon:.2f} in all at δ = {self.delta:g}, not {self.largest:.2f}. "
            "Choose on public records, or count it."
        )


def tuning_cost(studies: Sequence[Study], sites: int) -> TuningCost:
    """Compose one run of each study, by Renyi accounting at the smallest delta among them.

    Args:
        studies: one for each setting, as declared.
        sites: number of them, for sites that share one noise.
    """
    delta, releases = min(study.privacy.delta for study in studies), []
    for study in studies:
        release = schedule_of(study).release(study.total_steps)
        if isinstance(release, SharedGaussian):
            sizes = sum_sizes(sites, study.federation)
            release = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
        releases.append(release)
    largest = max(epsilon_rdp([release], delta) for release in releases)
    return TuningCost(len(studies), epsilon_rdp(releases, delta), delta, largest)
