"""Decides whom to ask what once the survivors of a round are fixed, and when nothing can open their sum any more.

Rules
1. A survivor is asked to sign the set until it has; then, once as many as the threshold have signed, for its part of
   the opening. Each question may be asked again for ever: a node answers with the same bytes.
2. Who is present and silent is asked again after a pause that grows; who was away is asked as soon as it is back.
3. A code that says "never", or an answer that breaks a rule of the sum, is for good: that node opens nothing.
4. The round is lost at once when those that may still answer cannot open it, and else when its time is over.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shared.protocol.messages import Leg, Status
from shared.secure_sum.session import Session, State

FOR_GOOD = frozenset(
    {
        Status.REJECTED,
        Status.REFUSED_STUDY,
        Status.REFUSED_VERSION,
        Status.REFUSED_ROSTER,
        Status.REFUSED_SURVIVORS,
        Status.OUT_OF_SECURE_SUM,
    }
)
"""Answers to a question of a secure sum that will stay the same."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0


@dataclass
class Legs:
    """The two questions to the survivors of one round; the caller brings events and the time."""

    session: Session
    never: dict[str, str] = field(default_factory=dict)
    """Survivors that will not answer, each with the code of the reason."""
    _asked: dict[str, tuple[Leg, int, float]] = field(default_factory=dict)
    """Of each survivor that was asked: what, how often, and when it is asked again."""

    def question(self, name: str) -> Leg | None:
        """Return what a survivor is to answer next, if anything."""
        if name in self.never or self.session.state is not State.FIXED:
            return None
        if name in self.session.unsigned:
            return "survivors"
        return "opening" if self.session.is_signed and name in self.session.unopened else None

    def due(self, present: Collection[str], now: float) -> list[tuple[str, Leg]]:
        """Return whom to ask now, and what; whoever is away is forgotten, and asked as soon as it is back."""
        for name in self._asked.keys() - set(present):
            del self._asked[name]
        wanted = [(name, self.question(name)) for name in present]
        return sorted((name, leg) for name, leg in wanted if leg is not None and self._is_due(name, leg, now))

    def note_asked(self, name: str, leg: Leg, now: float) -> None:
        """Take note that a survivor was asked."""
        before, times, _again = self._asked.get(name, (leg, 0, now))
        times = times + 1 if before == leg else 1
        self._asked[name] = (leg, times, now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(times - 1, 10)))

    def note_never(self, name: str, reason: str) -> None:
        """Take note of an answer after which no other one is waited for."""
        self.never.setdefault(name, reason)

    def hopeless(self) -> str:
        """Return why those that may still answer cannot open the sum; empty if they can."""
        session, threshold = self.session, self.session.threshold
        survivors = [] if session.survivors is None else session.survivors.names
        if len([name for name in survivors if name not in session.unsigned or name not in self.never]) < threshold:
            return f"fewer than {threshold} survivors can sign: {_listed(self.never)}"
        silent = {name: reason for name, reason in self.never.items() if name in session.unopened}
        if session.missing and silent:
            return f"only {', '.join(silent)} could take masks with missing nodes from the sum: {_listed(silent)}"
        bad = {(fault.dealer, fault.holder) for fault in session.faults}
        for dealer in survivors:
            able = [name for name in survivors if name not in silent and (dealer, name) not in bad]
            if len(able) < threshold:
                return f"fewer than {threshold} shares of the mask of {dealer} can come"
        return ""

    def signers(self) -> list[str]:
        """Return the survivors that have signed the set."""
        survivors = [] if self.session.survivors is None else self.session.survivors.names
        return [name for name in survivors if name not in self.session.unsigned]

    def waits_for(self) -> list[str]:
        """Return the survivors whose answers could still come."""
        survivors = [] if self.session.survivors is None else self.session.survivors.names
        return [name for name in survivors if self.question(name) is not None]

    def _is_due(self, name: str, leg: Leg, now: float) -> bool:
        asked, _times, again = self._asked.get(name, (None, 0, now))
        return asked != leg or now >= again


def _listed(never: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in sorted(never.items()))
