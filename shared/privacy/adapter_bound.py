"""Bound where a task's adapter may lie: no further from the start than honest rounds can have led.

A node trains from whatever adapter it is sent. Values far beyond honest ones would turn the rounding of float32 into a
sensitivity that no accounting covers. So nodes refuse them, and servers cut them off.

Let a part of the model (head, adapter, measured moments) have the rate r and the share C of the clipping norm, and let
f be the factors of the steps that moved it so far; F1 is their sum and F2 the sum of their squares. A site with the
batch B and the divisor L moves it by r/L x sum of f x (clipped gradients + noise). The server adds means over sites.

1. **Signal.** At most r C / L x (B F1 + sqrt(2 T B F2) + 2 T / 3). Each of X units adds at most C; X is binomial with a
   mean of at most B, independent in every step, and f is at most 1: by Bernstein's inequality the weighted sum of X is
   longer with a probability below e^-T.
2. **Noise.** Each value is normal with the deviation s = r sigma C0 sqrt(F2) / L, where C0 is the whole clipping norm.
   Of d values none exceeds s sqrt(2 (T + ln 2d)), and together they are no longer than s (sqrt(d) + sqrt(2 T)): each
   but for a probability of e^-T (union; Gaussian concentration).
3. **Means.** A mean over sites stays within the bound of the widest site, whoever takes part: the logarithm of a moment
   generating function is convex and 0 at 0, so a K-th of a site's sum has at most a K-th of it, and K of them have no
   more than the widest. The widest site has the largest B / L and the smallest L that the study admits. Whom a round
   asks and counts does not depend on what was drawn.
4. **Rounding.** Encodings widen it by `ROUNDING_ROOM`: their errors have mean 0 and grow no faster than what they
   round. float32 adds a last bit per step and per mean, and the sum of updates a last bit of its own.

With T = 30, and three parts with three bounds each in ten thousand rounds, honest adapters stay inside but for e^-18.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from shared.adapted_model.adapters import Layout
from shared.privacy.noise_schedule import NoiseSchedule, schedule_of
from shared.privacy.signal_to_noise import Part
from shared.privacy.study_steps import part_name, parts_in
from shared.privacy.update_bounds import widest_site
from shared.protocol.messages import Vector
from shared.protocol.update_encoding import ROUNDING_ROOM
from shared.study.declaration import Study
from shared.study.schedule import round_factors
from shared.study.sections import Federation

TAIL = 30.0
"""T: what happens with a probability below e^-T counts as never."""
UNDERSTATED = 1.05
"""Most units of a site for each that it declares: sizes are declared to two digits."""
ROOM = 1.01
"""Factor for what has no name: last digits of sigma, a clipping norm that was raised by a public grid."""
TOLERANCE = 1.01
"""How far beyond the bound a node accepts, in multiples of it: two machines may compute different last digits."""
START_ROOM = 1e-4
"""The same for start values, in multiples of the largest one of a part: their linear algebra may differ."""
LAST_BIT, SUM_BIT = 2.0**-23, 2.0**-32
METHOD_REACH = {"ffa": 1.0, "fedit": 1.0, "geometric-median": 1.0}
"""How many times as far as the plain mean an aggregation method may take an adapter, by its name. A node that does not
know a name takes the plain mean's, and a server cuts back to it."""


class Reach(NamedTuple):
    """How far the values of a part may lie from where they start."""

    entry: float
    """Each of them."""
    length: float
    """All of them together, l2."""


class AdapterBound:
    """The bounds of a study's adapters, round by round.

    Guarantee: the bound follows from public numbers alone: the study, the model's shapes and start, and the round.

    Args:
        study: as agreed.
        layout: of the packed adapter.
        start: packed adapter before round 1, from where nothing has moved in that round.
    """

    def __init__(self, study: Study, layout: Layout, start: Vector) -> None:
        self._start, self._places = start, part_places(layout)
        self.reach = [self._rounded(study, before, moved) for before, moved in enumerate(_moved(study, layout))]
        """By rounds before, and by part."""

    def admits(self, number: int, adapter: Vector) -> bool:
        """Return true if the rounds before one, counted from 1, may have led to this adapter, as a node judges it.

        Args:
            number: of the round.
            adapter: packed, all finite.
        """
        return all(max(excess) <= TOLERANCE for excess in self.excesses(number, adapter).values())

    def nearest(self, number: int, adapter: Vector) -> Vector:
        """Return the adapter itself if it lies inside, else cut every part of it back to the bound.

        Guarantee: every node admits what it returns.
        """
        if all(max(excess) <= 1 for excess in self.excesses(number, adapter).values()):
            return adapter
        moved = adapter.astype(np.float64) - self._start
        for part, places in self._places.items():
            entry, length = self.reach[number - 1][part]
            for place in places:
                np.clip(moved[place], -entry, entry, out=moved[place])
            total = math.sqrt(sum(float(moved[place] @ moved[place]) for place in places))
            for place in places:
                moved[place] *= min(1.0, length / total) if total else 1.0
        return (self._start + moved).astype(np.float32)

    def edge(self, number: int, seed: int) -> Vector:
        """Return an adapter on the bound: every value of a part is as far from its start, with signs from a seed."""
        moved = np.random.default_rng(seed).choice([-1.0, 1.0], len(self._start))
        for part, places in self._places.items():
            entry, length = self.reach[number - 1][part]
            each = min(entry, length / math.sqrt(_size(places)))
            for place in places:
                moved[place] *= each
        edge: Vector = (self._start + moved).astype(np.float32)
        return edge

    def excesses(self, number: int, adapter: Vector) -> dict[str, Reach]:
        """Return how far every part of an adapter lies from its start, in multiples of its bound."""
        excesses = {}
        for part, places in self._places.items():
            entry, length = 0.0, 0.0
            for place in places:
                moved = adapter[place].astype(np.float64) - self._start[place]
                entry = max(entry, float(np.abs(moved).max(initial=0.0)))
                length = math.hypot(length, float(np.linalg.norm(moved)))
            bound = self.reach[number - 1][part]
            excesses[part] = Reach(_multiple(entry, bound.entry), _multiple(length, bound.length))
        return excesses

    def _rounded(self, study: Study, before: int, moved: dict[str, Reach]) -> dict[str, Reach]:
        """Widen what exact sums reach by what rounding, and methods that are no plain mean, add to it."""
        federation, reach = study.federation, {}
        stretch = ROOM * ROUNDING_ROOM[federation.wire] * METHOD_REACH.get(federation.aggregation, 1.0)
        bits = LAST_BIT * before * (study.training.local_steps + 1)
        for part, places in self._places.items():
            entry, length = moved.get(part, Reach(0.0, 0.0))
            largest = max(float(np.abs(self._start[place]).max(initial=0.0)) for place in places)
            rounding = START_ROOM * largest + bits * (largest + entry) + SUM_BIT * before
            reach[part] = Reach(stretch * entry + rounding, stretch * length + rounding * math.sqrt(_size(places)))
        return reach


def worst_adapter(study: Study, layout: Layout, start: Vector, *, seed: int = 0) -> Vector:
    """Return an adapter at the edge of what a node accepts in any round: the same for the same arguments.

    Args:
        study: as agreed; its last round's bound is the widest.
        layout: of the packed adapter.
        start: packed adapter before round 1.
        seed: of the signs.
    """
    return AdapterBound(study, layout, start).edge(study.federation.rounds, seed)


def _moved(study: Study, layout: Layout) -> Iterator[dict[str, Reach]]:
    """Yield how far exact sums of no round, of one, of two and so on move each part that they move."""
    schedule, sums = schedule_of(study), dict[Part, tuple[float, float]]()
    yield {}
    for number in range(1, 1 + study.federation.rounds):
        factors = round_factors(study, number)
        for part in parts_in(study, layout.tensors, number):
            total, squares = sums.get(part, (0.0, 0.0))
            sums[part] = total + sum(factors), squares + sum(factor**2 for factor in factors)
        yield {part.name: _reach(part, *sums[part], schedule, study.federation) for part in sums}


def _reach(part: Part, total: float, squares: float, schedule: NoiseSchedule, federation: Federation) -> Reach:
    units, divisor = (schedule.sampling_rate * size for size in widest_site(federation))
    batch, step = UNDERSTATED * units, part.learning_rate * schedule.clip_norm / divisor
    drawn = batch * total + math.sqrt(2 * TAIL * batch * squares) + 2 * TAIL / 3
    signal, spread = step * math.sqrt(part.share or 1.0) * drawn, step * schedule.noise_multiplier * math.sqrt(squares)
    highest = math.sqrt(2 * (TAIL + math.log(2 * part.dimension)))
    return Reach(signal + spread * highest, signal + spread * (math.sqrt(part.dimension) + math.sqrt(2 * TAIL)))


def part_places(layout: Layout) -> dict[str, list[slice]]:
    """Return where each part's values stand in the packed adapter."""
    places, end = dict[str, list[slice]](), 0
    for name, shape in layout.tensors:
        begin, end = end, end + math.prod(shape)
        places.setdefault(part_name(name), []).append(slice(begin, end))
    return places


def _size(places: list[slice]) -> int:
    return sum(place.stop - place.start for place in places)


def _multiple(value: float, of: float) -> float:
    return value / of if of else math.inf if value else 0.0
