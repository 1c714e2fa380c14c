"""Set the noise of a study's evaluation: a function of the study alone, the same at every node."""

from shared.errors import SettingsError
from shared.privacy.calibration import noise_multiplier
from shared.privacy.releases import NoisyCounts
from shared.private_evaluation.cells import STEPS
from shared.study.declaration import Study


def sigma(study: Study) -> float:
    """Return the noise multiplier of each of a study's evaluations, calibrated by the gate that the ledger judges by.

    Guarantee: all evaluations of a run together cost one unit at most evaluation.epsilon at the study's delta.

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
    )


def evaluation_release(study: Study) -> NoisyCounts:
    """Return what one evaluation of a study releases.

    Raises:
        SettingsError: the study declares no evaluation.
        BudgetError: no practical noise is enough.
    """
    return NoisyCounts(sigma(study), 1)


def noise_scale(release: NoisyCounts) -> float:
    """Return the scale of the discrete Gaussian that is added to each count, in steps of the grid."""
    return release.noise_multiplier * release.sensitivity * STEPS
