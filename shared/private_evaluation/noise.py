"""Set the noise of a study's evaluation: a function of the study alone, the same at every node."""

import math

from shared.errors import SettingsError
from shared.privacy.calibration import noise_multiplier
from shared.privacy.releases import CountsRelease, NoisyCounts, SharedCounts, times
from shared.private_evaluation.cells import STEPS
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study


def sigma(study: Study) -> float:
    """Return the noise multiplier of each of a study's evaluations, calibrated by the gate that the ledger judges by.

    Guarantee: all evaluations of a run together cost one unit at most evaluation.epsilon at the study's delta.

    Where nodes share the noise it is that of as many honest ones together as every opened sum holds, as in training.

    Raises:
        SettingsError: the study declares no evaluation.
        BudgetError: no practical noise is enough.
    """
    if study.evaluation is None:
        raise SettingsError("Expected a study with [evaluation], got one without.")
    return noise_multiplier(
        epsilon=study.evaluation.epsilon,
        delta=study.privacy.delta,
        sampling_rate=1.0,
        steps=len(study.evaluated_after),
        shared=study.federation.secure_sum == "shared",
    )


def evaluation_release(study: Study) -> CountsRelease:
    """Return what one evaluation of a study releases; shared noise is still without its roster.

    Raises:
        SettingsError: the study declares no evaluation.
        BudgetError: no practical noise is enough.
    """
    if study.federation.secure_sum == "shared":
        return SharedCounts(sigma(study), 1.0, 1)
    return NoisyCounts(sigma(study), 1)


def noise_scale(release: CountsRelease) -> float:
    """Return the scale of the discrete Gaussian that a node adds to each of its counts, in steps of the grid.

    Raises:
        SettingsError: the noise is shared, and no roster says among how many.
    """
    if isinstance(release, SharedCounts):
        return release.own_scale
    return release.noise_multiplier * release.sensitivity * STEPS


def summed_noise(study: Study, sites: int, sizes: Thresholds | None = None) -> float:
    """Return the standard deviation of the noise in each count of a sum over some sites, in units.

    Args:
        study: with an evaluation.
        sites: how many have added their part.
        sizes: of the run's roster, where its nodes share the noise.

    Raises:
        SettingsError: the noise is shared, and no roster says among how many.
    """
    release = evaluation_release(study)
    if isinstance(release, SharedCounts) and sizes is not None:
        release = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
    return noise_scale(release) / STEPS * math.sqrt(sites)


def all_counts(study: Study) -> CountsRelease | None:
    """Return what all evaluations of a run release together; None for a study without any."""
    return None if study.evaluation is None else times(evaluation_release(study), len(study.evaluated_after))
