"""Bounds the updates that the server accepts and the adapters that it sends, from the study's public numbers alone."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shared.adapted_model.adapters import Layout
from shared.privacy.adapter_bound import AdapterBound, part_places
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.signal_to_noise import Part, Steps, shortest_noise
from shared.privacy.study_steps import batch_of, parts_in, round_steps
from shared.privacy.update_bounds import largest_signal, noise_deviation, widest_site
from shared.protocol.messages import Vector
from shared.protocol.update_encoding import ROUNDING_ROOM
from shared.study.declaration import Study
from shared.study.schedule import round_factors

log = logging.getLogger(__name__)
LARGEST_NORM = 1000.0
"""No longer update is accepted, whatever a study declares: the fixed-point sum of a million nodes cannot overflow."""


def norm_bound(study: Study, round_number: int, layout: Layout) -> float:
    """Return the largest norm that an honest update of this round has at any site that the study admits.

    The longest updates come from the smallest site where sites divide by their own size: its noise is the loudest, and
    its batch the most uneven. Where they divide by a typical size they come from a site that weighs the most.
    """
    federation, schedule = study.federation, schedule_of(study)
    trained = parts_in(study, layout.tensors, round_number)
    units, divisor = widest_site(federation)
    return ROUNDING_ROOM[federation.wire] * largest_plausible_norm(
        rate=max(part.learning_rate for part in trained),
        factors=round_factors(study, round_number),
        clip_norm=schedule.clip_norm,
        noise_multiplier=schedule.noise_multiplier,
        expected_batch=schedule.sampling_rate * units,
        divisor=schedule.sampling_rate * divisor,
        dimension=sum(part.dimension for part in trained),
    )


@dataclass(frozen=True)
class NoiseFloor:
    """The length that its noise alone gives each part of one site's honest update, whatever the records are."""

    shortest: Mapping[str, float]
    """By part of the model."""
    places: Mapping[str, Sequence[slice]]
    """Where each part's values stand in an update."""

    def is_quiet(self, update: Vector) -> bool:
        """Return true if a part of an update is shorter than its noise makes it.

        Guarantee: an update with its whole noise is called quiet with a probability below e^-17, whatever its records.
        """
        for part, least in self.shortest.items():
            squares = (float(np.linalg.norm(update[place].astype(np.float64))) ** 2 for place in self.places[part])
            if ROUNDING_ROOM["bfloat16"] * math.sqrt(sum(squares)) < least:
                return True
        return False


def noise_floor(study: Study, layout: Layout, number: int, declared_size: int) -> NoiseFloor:
    """Return the floor of a round's updates at a site of a declared size."""
    steps = round_steps(study, schedule_of(study), batch_of(study, declared_size), number)
    parts = parts_in(study, layout.tensors, number)
    return NoiseFloor({part.name: _shortest(part, steps) for part in parts}, part_places(layout))


def _shortest(part: Part, steps: Steps) -> float:
    """Return a length that a part of an update exceeds except with probability e^-18, whatever its signal does.

    What the last k steps begin with cannot cancel their noise, which is not drawn yet (Anderson 1955: a shift makes a
    centred Gaussian no shorter). Signals after the first of them can cancel at most their own length. So the bound is
    the noise of k steps less the longest signal of k - 1, for the best k.
    """
    batch, share = steps.batch, math.sqrt(part.share or 1.0)

    def of_last(count: int) -> float:
        noise = shortest_noise([part], replace(steps, factors=steps.factors[-count:]))
        later = largest_signal(
            rate=part.learning_rate,
            factors=steps.factors[len(steps.factors) - count + 1 :],
            clip_norm=steps.clip_norm * share,
            expected_batch=batch.units,
            divisor=batch.divisor,
        )
        return noise - later

    return max(map(of_last, range(1, len(steps.factors) + 1)))


def keep_within(study: Study, layout: Layout, initial: Vector) -> Callable[[int, Vector], Vector]:
    """Return what cuts an adapter, before a round sends it, back to where nodes accept it.

    Honest updates never lead beyond. A member's that are not may, and then no node would train any more.

    Args:
        study: as declared.
        layout: of the packed adapter.
        initial: packed adapter before round 1.
    """

    bound = AdapterBound(study, layout, initial)

    def within(number: int, adapter: Vector) -> Vector:
        nearest = bound.nearest(number, adapter)
        if nearest is not adapter:
            log.warning(
                "Round %d: the adapter lay beyond what honest updates lead to and was cut: an update was not "
                "honest, or the aggregation of another package went too far.",
                number,
            )
        return nearest

    return within


def largest_plausible_norm(
    *,
    rate: float,
    factors: Sequence[float],
    clip_norm: float,
    noise_multiplier: float,
    expected_batch: float,
    divisor: float,
    dimension: int,
) -> float:
    """Bound the norm of one site's honest update of one round.

    One step moves by rate x factor x (sum of clipped gradients + noise) / L. The noise vector's length is at most
    sigma C (sqrt(d) + 6) (Gaussian concentration: above with probability e^-18).

    Args:
        rate: largest learning rate of any trained tensor.
        factors: learning-rate factor of every step of the round.
        clip_norm: C.
        noise_multiplier: sigma.
        expected_batch: of the site whose honest updates may be longest.
        divisor: L, of that site's sums.
        dimension: floats in the update.
    """
    signal = largest_signal(
        rate=rate, factors=factors, clip_norm=clip_norm, expected_batch=expected_batch, divisor=divisor
    )
    noise = noise_deviation(
        rate=rate, factors=factors, clip_norm=clip_norm, noise_multiplier=noise_multiplier, divisor=divisor
    )
    return signal + noise * (math.sqrt(dimension) + 6)
