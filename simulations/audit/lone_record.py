"""Attack the divisor: a site of one record or of two, guessed from the size of what a round releases.

Canaries cannot see a divisor that is computed from the data: among thousands it hardly changes with one. Beside a
single record it halves noise and signal with the second. Each run is a site of its own, with its own coin, so the
bounds of one run with many canaries hold for many runs with one.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.vault.training.randomness import Randomness
from shared.study.sections import RECORD
from simulations.audit.audited_site import Claim, records_of, released, site_on, study_of
from simulations.audit.one_run_bound import Guesses, guess

RUNS = 400
SHARE = 0.25
"""Guesses on either side, as a share of the runs."""


def guess_by_size(
    claim: Claim, folder: Path, *, seed: int, randomness: Callable[[int], Randomness], runs: int = RUNS
) -> Guesses:
    """Run many studies of one round under a claim's epsilon and delta, and guess which ones had the second record.

    Args:
        claim: to test.
        folder: for model and cache.
        seed: of the coins.
        randomness: of each run's only round, by the run's number.
        runs: number of them.

    Raises:
        ExactnessError: a round was refused or failed, or a record raised.
    """
    once = replace(claim, sampling_rate=1.0, rounds=1, canaries=1, unit=RECORD, whitening=False)
    study, included = study_of(once, folder), np.random.default_rng([seed, 3]).random(runs) < 0.5
    run = iter(range(runs))
    sites = [
        site_on(study, records_of(count), folder, lambda _round: randomness(next(run)), declared_size=1)
        for count in (1, 2)
    ]
    sizes = np.array([np.linalg.norm(released(sites[int(beside)], 1)) for beside in included])
    return guess(-sizes, included, share=SHARE)
