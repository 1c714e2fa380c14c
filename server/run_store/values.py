"""A run, a node and an event, as the run store hands them out."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from shared.errors import DataError, SettingsError
from shared.study.declaration import Study, recorded

NO_NUMBER = 0
"""A node's number before Flower has given it one."""
RunState = Literal["queued", "running", "waiting", "finished", "stopped", "failed"]
OPEN_STATES: tuple[RunState, ...] = ("running", "waiting", "queued")
"""Of runs that have not come to an end."""


@dataclass(frozen=True)
class Run:
    """One run of one study."""

    id: str
    study_name: str
    study_sha256: str
    study_text: str
    """As JSON; `study` reads it, and one run's damage costs no other run anything."""
    wanted: bool
    """Whether somebody wants it to continue."""
    state: RunState
    reason: str
    """Why it failed, or what it waits for; empty otherwise."""
    created: str
    updated: str
    round: int
    """The last finished one."""
    rounds: int

    @property
    def study(self) -> Study:
        """Read the study.

        Raises:
            DataError: it is not what was queued any more.
        """
        try:
            study = recorded(json.loads(self.study_text), where=f"run {self.id}")
        except (ValueError, RecursionError, SettingsError):
            study = None
        if study is None or study.sha256 != self.study_sha256:
            raise DataError(
                f"Expected the study of {self.id} as it was queued, got one that is damaged.",
                hint="Queue the study again from its file, or restore the run store from a backup.",
            )
        return study

    def standing(self, ahead: str | None) -> str:
        """Return the run's state in words.

        Args:
            ahead: the run that is driven first, if there is one.
        """
        if self.state == "failed":
            return f"failed: {self.reason}"
        if self.wanted and self.state in ("queued", "running") and ahead not in (None, self.id):
            return f"behind {ahead}"
        return self.reason if self.state == "waiting" and self.reason else self.state

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the study by name and digest."""
        plain = {name: value for name, value in vars(self).items() if not name.startswith("study")}
        return plain | {"study": self.study_name, "study_sha256": self.study_sha256}


@dataclass(frozen=True)
class Node:
    """One organisation's node, invited, enrolled or revoked."""

    name: str
    node_id: int
    """Flower's number; `NO_NUMBER` before Flower has let the node in."""
    public_key: str
    invited: str
    enrolled: str | None
    revoked: str | None

    @property
    def status(self) -> str:
        """Return the latest of invited, enrolled, revoked."""
        return "revoked" if self.revoked else "enrolled" if self.enrolled else "invited"


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    id: int
    run: str | None
    time: str
    kind: str
    body: dict[str, Any]
