"""Set the public numbers of a run's secure sum, on both sides, from the study and the number of nodes alone."""

from shared.errors import SettingsError
from shared.privacy.grid import GRID
from shared.privacy.noise_schedule import schedule_of
from shared.secure_sum.roster import Numbers
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes


def sum_numbers(study: Study, nodes: int) -> Numbers:
    """Return what all nodes of a run must agree on before the first vector.

    Raises:
        SettingsError: the study has no secure sum, or none with so many nodes.
        BudgetError: no practical noise is enough for the study.
    """
    mode = study.federation.secure_sum
    if mode is None:
        raise SettingsError("Expected a study with federation.secure_sum, got one without.")
    release = schedule_of(study).release(study.training.local_steps)
    noise = {"grid": GRID, "noise_multiplier": release.noise_multiplier, "sensitivity": release.sensitivity}
    return Numbers(mode, sum_sizes(nodes, study.federation), tuple(sorted(noise.items())))
