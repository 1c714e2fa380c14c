"""State what attacks on a study's own training showed, beside what the study promises.

Reports and cards read this value from JSON and print `sentences`; who made it is of no concern to them.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from shared.errors import SettingsError
from shared.files import write_atomically
from shared.section import Section

FALSE_POSITIVE_RATE = 0.01
"""At which the membership attack's hits are counted."""


class Control(Section):
    """Result of the attack on training with a fault in it: a fault that goes unseen says that silence is no proof."""

    fault: str
    """The fault, in a few words, such as "a third of the noise"."""
    sampling_rate: float = Field(gt=0, le=1)
    """q where it was tried: the study's own schedule if the fault shows there, else whole batches at the same epsilon,
    of which an attack sees most."""
    steps: int = Field(ge=1)
    """Noisy steps there."""
    epsilon_if_ideal: float = Field(ge=0)
    """The mean bound that an ideal mechanism with this fault would show."""
    must_be_caught: bool
    """Whether nine of ten such attacks refute the promise where this fault is; others are not tried."""
    epsilon_at_least: float | None = Field(default=None, ge=0)
    """What the attack showed of it, at 95 %, at the second try if the first missed; null where none was tried."""
    caught: bool = False
    """Whether the promise was refuted."""


class CanaryAudit(Section):
    """A lower bound on epsilon by canaries: planted records whose gradient is a direction of their own."""

    epsilon_stated: float = Field(gt=0)
    """As the study states it."""
    delta: float = Field(gt=0, lt=1)
    """As the study states it."""
    unit: str
    """Whose presence is hidden."""
    sampling_rate: float = Field(gt=0, le=1)
    """q, the study's."""
    steps: int = Field(ge=1)
    """Noisy steps, the study's; each is released by itself, which shows more than rounds of several steps do."""
    canaries: int = Field(ge=1)
    """Planted, each with probability 1/2."""
    guesses: int = Field(ge=0)
    """For how many of them the attacker guessed."""
    correct: int = Field(ge=0)
    """How many guesses were right."""
    epsilon_at_least: float = Field(ge=0)
    """The bound at 95 %; above epsilon_stated the promise is refuted. It presumes noise of Gaussian shape."""
    epsilon_at_least_any: float = Field(ge=0)
    """The weaker bound that presumes no shape of the noise."""
    epsilon_if_ideal: float = Field(ge=0)
    """The mean bound that an ideal mechanism at the promised epsilon would show: the power of this audit."""
    epsilon_by_size: float = Field(default=0.0, ge=0)
    """The bound at 95 % by guessing, from the size of what a round of a tiny site releases, whether it has one record
    more: a divisor that is computed from the data shows there."""
    controls: tuple[Control, ...] = ()
    """The attack on faulty training."""

    @property
    def refuted(self) -> bool:
        """Return true if the promise is false at 95 %."""
        return max(self.epsilon_at_least, self.epsilon_by_size) > self.epsilon_stated

    @property
    def passed(self) -> bool:
        """Return true unless the promise was refuted or a fault escaped that had to be caught."""
        return not self.refuted and all(one.caught or not one.must_be_caught for one in self.controls)


class Hits(Section):
    """The share of members that an attacker recognises, with its 95 % interval over units."""

    rate: float = Field(ge=0, le=1)
    """True positives at a false-positive rate of 1 %."""
    low: float = Field(ge=0, le=1)
    """Lower end of the interval."""
    high: float = Field(ge=0, le=1)
    """Upper end."""


class MembershipAttack(Section):
    """An attacker who has the finished adapter, everybody's records, and shadow adapters trained like it."""

    site: str
    """Whose records were attacked."""
    unit: str
    """Whose membership was guessed."""
    units: int = Field(ge=2)
    """How many; a random half of them took part in each adapter."""
    adapters: int = Field(ge=2)
    """Adapters that were trained; each was attacked with all others as shadows."""
    private: Hits
    """Against adapters that the study's own training made."""
    without_privacy: Hits
    """Against adapters that were trained without privacy: what this attacker can do at all."""
    most: float = Field(ge=0, le=1)
    """The largest rate that the promised epsilon and delta allow anybody."""


class AuditResult(Section):
    """Attacks on a study's own training, on one day with one version."""

    schema_version: Literal[1] = 1
    """Raised when a field changes its meaning."""
    fedvault_version: str
    """Version that was attacked."""
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Day of the attack, in UTC."""
    study_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Identity of the study."""
    canaries: CanaryAudit | None = None
    """The lower bound; null where it was not measured."""
    membership: MembershipAttack | None = None
    """The membership attack; null where it was not measured."""


def write_audit(path: Path, result: AuditResult) -> None:
    """Write an audit's result as a whole or not at all."""
    write_atomically(path, (result.model_dump_json(indent=1) + "\n").encode())


def read_audit(path: Path) -> AuditResult:
    """Read an audit's result.

    Raises:
        SettingsError: not there, not JSON, or of another shape.
    """
    try:
        return AuditResult.model_validate_json(path.read_bytes())
    except OSError:
        raise SettingsError(f"Expected {path}, got nothing.", hint="Run: fedvault-sim audit SCENARIO") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise SettingsError(
            f"Expected an audit's result, got {path}: {where} {error.errors()[0]['msg']}.",
            hint="Run the audit again with this version of FedVault.",
        ) from None


def sentences(result: AuditResult) -> list[str]:
    """Return what the attacks showed, for somebody who decides."""
    parts = []
    if result.canaries is not None:
        parts += _of_canaries(result.canaries)
    if result.membership is not None:
        parts.append(_of_membership(result.membership))
    return [*parts, f"Attacked on {result.date}, FedVault {result.fedvault_version}."]


def _of_canaries(audit: CanaryAudit) -> list[str]:
    outcome = "the promise is REFUTED" if audit.refuted else "the promise stands"
    observed = (
        f"Promised: epsilon at most {audit.epsilon_stated:.1f}. Observed: at least {audit.epsilon_at_least:.1f} at "
        f"95 %, by {audit.canaries:,} planted {audit.unit}s, each in by the toss of a coin; {outcome}. Of ideal noise, "
        f"such an attack shows {audit.epsilon_if_ideal:.1f}."
    )
    parts = [observed]
    for caught, verb in ((True, "caught"), (False, "NOT caught")):
        faults = [one for one in audit.controls if one.must_be_caught and one.caught == caught]
        if faults:
            shown = ", ".join(f"{one.fault} ({one.epsilon_at_least or 0.0:.1f})" for one in faults)
            parts.append(f"Faults put in on purpose were {verb}: {shown}.")
    unseen = [f"{one.fault} (shows {one.epsilon_if_ideal:.1f})" for one in audit.controls if not one.must_be_caught]
    if unseen:
        parts.append(f"At this epsilon such an attack cannot be relied on to see: {', '.join(unseen)}.")
    return parts


def _of_membership(attack: MembershipAttack) -> str:
    private, bare = attack.private, attack.without_privacy
    return (
        f"Who has the adapter, every {attack.unit}'s records at {attack.site} and {attack.adapters - 1} shadow "
        f"adapters, and accuses 1 in 100 wrongly, recognises {_percent(private)} of those that took part. Blind "
        f"guessing gives 1.0 %; without privacy it is {_percent(bare)}; the promise allows {100 * attack.most:.1f} %."
    )


def _percent(hits: Hits) -> str:
    return f"{100 * hits.rate:.1f} % ({100 * hits.low:.1f} to {100 * hits.high:.1f})"
