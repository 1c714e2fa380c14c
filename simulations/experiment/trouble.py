"""[simulation.trouble]: what goes wrong on purpose in the study's own arm. Pure decisions, no IO.

Everything is drawn from the simulation's seed, and no time passes: a slow site is late by the clock of the scenario.
"""

import hashlib
import math
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.section import Positive, Section

Poison = Literal["flipped-labels", "scaled-update", "noise-free-update"]


class Trouble(Section):
    """[simulation.trouble]: faults and attacks on the arm `federated`; the arm `untroubled` is the same without."""

    drop_out: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a site's answer to a round never comes. What it has trained is paid all the same."""
    slow_sites: tuple[str, ...] = ()
    """Names of sites that take longer for each round."""
    slow_s: Positive | None = None
    """By how many seconds; above `federation.deadline_s` their answers come too late."""
    poisoned_sites: tuple[str, ...] = ()
    """Names of sites that send what they should not."""
    poison: Poison | None = None
    """`flipped-labels`: they train on the next label in place of each. `scaled-update`: they send their update times
    `poison_factor`. `noise-free-update`: they add no noise, so their own records are protected by NOTHING."""
    poison_factor: float = 10.0
    """Of a scaled update; a negative one turns it round."""
    server_crash_round: int | None = Field(default=None, ge=1)
    """Round in whose middle the server is cut off once; it goes on from its last checkpoint."""

    @field_validator("poison_factor")
    @classmethod
    def _is_a_factor(cls, factor: float) -> float:
        if not math.isfinite(factor) or factor in (0.0, 1.0):
            raise ValueError("a poison_factor is finite, and neither 0 nor 1")
        return factor

    @model_validator(mode="after")
    def _names_go_with_what_befalls_them(self) -> Self:
        if bool(self.slow_sites) != (self.slow_s is not None):
            raise ValueError("simulation.trouble takes slow_sites and slow_s together")
        if bool(self.poisoned_sites) != (self.poison is not None):
            raise ValueError("simulation.trouble takes poisoned_sites and poison together")
        if self.poison != "scaled-update" and "poison_factor" in self.model_fields_set:
            raise ValueError("simulation.trouble.poison_factor only goes with poison = 'scaled-update'")
        return self

    @property
    def named(self) -> set[str]:
        """Return the sites that it names."""
        return {*self.slow_sites, *self.poisoned_sites}

    def poison_of(self, site: str) -> Poison | None:
        """Return what a site does wrong on purpose."""
        return self.poison if site in self.poisoned_sites else None

    def drops_out(self, site: str, number: int, *, seed: int) -> bool:
        """Return whether a site's answer to a round never comes: drawn for each by itself."""
        drawn = hashlib.sha256(repr(("drop-out", seed, site, number)).encode()).digest()
        return int.from_bytes(drawn[:8], "big") < self.drop_out * 2**64

    def delay_s(self, site: str) -> float:
        """Return by how many seconds a site is slower."""
        return self.slow_s if self.slow_s is not None and site in self.slow_sites else 0.0

    def loses(self, site: str, number: int, *, seed: int, deadline_s: float) -> bool:
        """Return whether a site's answer to a round counts as lost."""
        return self.delay_s(site) > deadline_s or self.drops_out(site, number, seed=seed)
