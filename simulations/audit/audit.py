"""Audit a claim: a bound on epsilon from one run of the node's own trainer, beside what the audit could see at all."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from client.vault.training.randomness import OsRandomness, Randomness
from shared.privacy.calibration import noise_multiplier
from simulations.audit.audited_site import Claim, attack
from simulations.audit.one_run_bound import Guesses, epsilon_of_any, epsilon_of_gaussian, guess

REPEATS = 20
"""Simulated runs of the mechanism as it is on paper."""


@dataclass(frozen=True)
class Audit:
    """One audited run."""

    claim: Claim
    guesses: Guesses
    epsilon_at_least: float
    """The bound, at 95 %; above the claim's epsilon the claim is refuted."""
    epsilon_at_least_any: float
    """The weaker bound that presumes no shape of the noise."""
    power: float
    """The mean bound of ideal noise that keeps the claim exactly: an audit sees no more of it."""
    power_of_half: float
    """The bound that nine of ten runs with half the noise exceed. Unless it is above the claim, there is no verdict."""
    noise: float | None = None
    """Of what is left of a sum, as a share of what is promised; None where it is not measured."""

    @property
    def refuted(self) -> bool:
        """True if the claim is false at 95 %, or noise is missing: the bound alone sees no loss of a third."""
        missing = self.noise is not None and self.noise < 1 - 5 / math.sqrt(self.claim.canaries)
        return missing or self.epsilon_at_least > self.claim.epsilon

    @property
    def verdict(self) -> str:
        """In one word; a claim that cannot be refuted passes nothing."""
        if self.refuted:
            return "refuted"
        return "passes" if self.power_of_half > self.claim.epsilon else "no power"


def audit(
    claim: Claim, folder: Path, *, seed: int, randomness: Callable[[int], Randomness] = lambda _round: OsRandomness()
) -> Audit:
    """Attack one run of the claim's study.

    Args:
        claim: to test.
        folder: for model and cache.
        seed: of the coins that put canaries in.
        randomness: of each round's sampling and noise; a node's by default.

    Raises:
        ExactnessError: a round could not be trained.
    """
    included = np.random.default_rng([seed, 1]).random(claim.canaries) < 0.5
    guesses = guess(attack(claim, included, folder, randomness), included)
    return Audit(
        claim,
        guesses,
        epsilon_of_gaussian(guesses, delta=claim.delta),
        epsilon_of_any(guesses, delta=claim.delta),
        float(np.mean(ideal_bounds(claim))),
        nearly_always(ideal_bounds(claim, noise=0.5)),
    )


def nearly_always(bounds: list[float]) -> float:
    """Return the bound that nine of ten runs exceed."""
    return float(np.quantile(bounds, 0.1))


def ideal_bounds(claim: Claim, *, noise: float = 1.0, seed_twice: bool = False) -> list[float]:
    """Return the bounds of some runs of the mechanism as it is on paper, or with a fault in it.

    Args:
        claim: to test.
        noise: multiple of the noise that keeps the claim.
        seed_twice: whether rounds 1 and 2 have the same samples and noise, rounds 3 and 4, and so on.
    """
    sigma = noise * noise_multiplier(
        epsilon=claim.epsilon, delta=claim.delta, sampling_rate=claim.sampling_rate, steps=claim.rounds
    )
    return _bounds(claim.canaries, claim.sampling_rate, claim.rounds, sigma, claim.delta, seed_twice)


@cache
def _bounds(
    canaries: int, sampling_rate: float, rounds: int, sigma: float, delta: float, seed_twice: bool
) -> list[float]:
    bounds = []
    for repeat in range(REPEATS):
        generator = np.random.default_rng([repeat, 2])
        included = generator.random(canaries) < 0.5
        # of two rounds with one seed the noise cancels, for canaries are turned round in between
        pairs, noisy = (rounds // 2, rounds % 2) if seed_twice else (0, rounds)
        drawn = 2 * generator.binomial(pairs, sampling_rate, canaries)
        drawn += generator.binomial(rounds - 2 * pairs, sampling_rate, canaries)
        scores = included * drawn + math.sqrt(noisy) * sigma * generator.standard_normal(canaries)
        bounds.append(epsilon_of_gaussian(guess(scores, included), delta=delta))
    return bounds
