"""A run, a node and an event, as the run store hands them out."""

from dataclasses import dataclass
from typing import Any, Literal

from shared.study.declaration import Study

NO_NUMBER = 0
"""A node's number before Flower has given it one."""
RunState = Literal["queued", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Run:
    """One run of one study."""

    id: str
    study: Study
    wanted: bool
    """Whether somebody wants it to continue."""
    state: RunState
    reason: str
    """Why it failed; empty otherwise."""
    created: str
    updated: str
    round: int
    """The last finished one."""
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the study by name and digest."""
        plain = {name: value for name, value in vars(self).items() if name != "study"}
        return plain | {"study": self.study.study.name, "study_sha256": self.study.sha256}


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
