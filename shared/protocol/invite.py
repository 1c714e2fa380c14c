"""Read an invite: a file with all that a node needs to reach the server, trust it, and enrol once."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Literal

from shared.errors import SettingsError
from shared.section import Section

ENROL_PATH, RENEW_PATH = "/v1/enrol", "/v1/renew"


class Invite(Section):
    """The contents of an invite, for one organisation; a secret until it is used."""

    fedvault_invite: Literal[1] = 1
    """Version of this format."""
    name: str
    """Name of this node at the server."""
    server: str
    """host:port of the server's gateway."""
    authority: str
    """PEM certificate of the federation's own authority; nothing else is trusted."""
    token: str
    """Secret that allows one enrolment."""
    expires: datetime
    """Time after which the token is refused."""
    renews: bool = False
    """For a node that has joined, and whose certificate ended: it keeps its key."""

    def as_json(self) -> str:
        """Return the invite as a file holds it; a usual one can be read by every earlier version."""
        return self.model_dump_json(indent=1, exclude=None if self.renews else {"renews"}) + "\n"


def read_invite(path: Path) -> Invite:
    """Read an invite from a file, or from the standard input if it is called `-`.

    Raises:
        SettingsError: the file is missing or holds no invite.
    """
    try:
        return Invite.model_validate_json(sys.stdin.read() if path == Path("-") else path.read_text())
    except OSError:
        raise SettingsError(f"Expected an invite, got {path}, which cannot be read.") from None
    except ValueError:
        raise SettingsError(
            f"Expected an invite in {path}, got something else.", hint="Ask the server's operator for a new one."
        ) from None
