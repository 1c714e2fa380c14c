"""Set the noise of a study: a function of the study alone, the same at every site.

No record, count of records or performance setting enters here.
"""

import math
from dataclasses import dataclass
from typing import Literal

from shared.checks import at_least
from shared.privacy.calibration import noise_multiplier
from shared.privacy.grid import sensitivity
from shared.privacy.releases import SharedGaussian, SubsampledDiscreteGaussian
from shared.study.declaration import Study
from shared.study.sections import Privacy


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise, sampling, steps and clipping that every node of a study uses."""

    noise_multiplier: float
    sampling_rate: float
    steps: int
    """Steps of a node that joins every round: the worst case, for which the noise is set."""
    clipping: Literal["automatic", "flat"]
    clip_norm: float
    head_share: float | None
    """The head's share of the squared clipping norm; the adapter has the rest. None: both are clipped as one vector."""
    epsilon: float
    delta: float
    unit: str
    shared: bool = False
    """Whether the noise is that of many nodes together, each of which adds a share."""

    def release(self, steps: int) -> SubsampledDiscreteGaussian:
        """Describe the release of a node after `steps` steps; a shared one is still without its roster."""
        kind = SharedGaussian if self.shared else SubsampledDiscreteGaussian
        return kind(self.noise_multiplier, self.sampling_rate, steps, sensitivity(self.clip_norm))


def schedule_of(study: Study) -> NoiseSchedule:
    """Set the noise for a whole study in advance, as `plan` does.

    Raises:
        BudgetError: no practical noise is enough.
    """
    return plan(study.privacy, steps=study.total_steps, shared=study.federation.secure_sum == "shared")


def plan(privacy: Privacy, *, steps: int, shared: bool = False) -> NoiseSchedule:
    """Set the noise for a whole study in advance.

    Guarantee: noise multiplier, sampling rate, steps and clipping follow from the study alone, never from data, site
    or performance settings.

    Args:
        privacy: the study's promise.
        steps: rounds x local steps.
        shared: whether nodes share the noise.

    Raises:
        BudgetError: no practical noise is enough.
    """
    sigma = noise_multiplier(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=privacy.sampling_rate,
        steps=steps,
        shared=shared,
    )
    return NoiseSchedule(
        noise_multiplier=sigma,
        sampling_rate=privacy.sampling_rate,
        steps=steps,
        clipping=privacy.clipping,
        clip_norm=privacy.clip_norm,
        head_share=privacy.head_share,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        unit=privacy.unit,
        shared=shared,
    )


def declared_size(count: int) -> int:
    """Round a number of records to two significant digits, as operators declare it: 8473 becomes 8500."""
    at_least(0, count=count)
    if count < 100:
        return count
    step = int(10.0 ** (math.floor(math.log10(count)) - 1))
    return round(count / step) * step
