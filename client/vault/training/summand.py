"""One round of a study with a secure sum: the whole numbers that this node adds, before any mask.

| mode | what is added |
|---|---|
| `masked` | the round's update as ever, on the public grid of the server's sums |
| `shared` | one step's sum of clipped gradients with this node's share of the noise, in steps of the gradients' grid |

Whoever holds a summand of the second kind by itself sees this node's records through its small share alone. It leaves
the vault behind a mask or not at all.
"""

import numpy as np
from numpy.typing import NDArray

from client.vault.training.noise_prefetch import prefetch_noise
from client.vault.training.optimizer import PrivateOptimizer
from client.vault.training.randomness import Randomness
from client.vault.training.trainer import PrivateTrainer
from shared.errors import ExactnessError
from shared.privacy.releases import SharedGaussian
from shared.study.sections import Federation


def site_weight(federation: Federation, declared_size: int) -> float:
    """Return w, the public factor on a site's sum: 1, or less for a site that weighs more than the study lets it.

    Guarantee: it follows from the study and the declared size alone, and never exceeds 1.
    """
    divisor = federation.divisor_size(declared_size)
    return (federation.typical_size or divisor) / divisor


def shared_summand(
    trainer: PrivateTrainer,
    received: NDArray[np.float32],
    *,
    randomness: Randomness,
    release: SharedGaussian,
    weight: float,
) -> NDArray[np.int64]:
    """Take the one private step of a round with shared noise.

    Guarantee: exactly one step is taken, with exactly one draw of noise, of the share that the charged release says.
    Guarantee: once the noise is drawn nothing is clamped, checked or raised.

    Args:
        trainer: of the study's records.
        received: packed adapter.
        randomness: of the round.
        release: as it was charged, with the numbers of the run's roster.
        weight: public factor on the sum, from `site_weight`.

    Returns:
        The summand, modulo 2^64, in the order of the packed adapter.

    Raises:
        ExactnessError: another release was charged than the plan's, or one without a roster.
    """
    plan = trainer.plan
    charged = (release.noise_multiplier, release.sampling_rate, release.count)
    if not plan.shared or not release.settled or charged != (plan.noise_multiplier, plan.sampling_rate, 1):
        raise ExactnessError(f"Expected one step of the noise that the study shares, {release} was charged.")
    trainer.model.eval()
    trainer.model.load(received)
    trainer.raised = set()
    with trainer.measuring(False):
        optimizer, records = trainer.optimizer(release, weight=weight), trainer.activations.records
        places = _packed_order(trainer, optimizer)
        drawn = prefetch_noise(randomness.step(), trainer.entries, optimizer.noise_scale, trainer.activations.device)
        trainer.sum_up(optimizer, drawn.poisson_batch(records.unit_count, release.sampling_rate))
        trainer.clip_fraction = int(optimizer.scaled_down) / max(1, optimizer.seen)
        return optimizer.noisy_sum(drawn)[places]


def _packed_order(trainer: PrivateTrainer, optimizer: PrivateOptimizer) -> NDArray[np.int64]:
    """Return where each number of the packed adapter stands among the optimizer's parameters."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    places, end = dict[str, NDArray[np.int64]](), 0
    for parameter in optimizer.params:
        begin, end = end, end + parameter.numel()
        places[names[id(parameter)]] = np.arange(begin, end)
    if set(places) != {name for name, _ in trainer.model.layout.tensors}:
        raise ExactnessError("Expected every tensor of the adapter to be trained in a round with shared noise.")
    return np.concatenate([places[name] for name, _ in trainer.model.layout.tensors])
