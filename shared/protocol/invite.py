"""An invite: everything a node needs to find the server, trust it, and be let in once."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Literal

from shared.errors import SettingsError
from shared.section import Section

ENROL_PATH, RENEW_PATH = "/v1/enrol", "/v1/renew"


class Invite(Section):
    """One file, for one organisation; a secret until it is used."""

    fedvault_invite: Literal[1] = 1
    """Version of this format."""
    name: str
    """What the server calls this node."""
    server: str
    """host:port of the server's gateway."""
    authority: str
    """PEM certificate of the federation's own authority; nothing else is trusted."""
    token: str
    """Good for one enrolment."""
    expires: datetime
    """End of the token's life."""


def read_invite(path: Path) -> Invite:
    """Read an invite from a file, or from the standard input if it is called `-`.

    Raises:
        SettingsError: it is not there or not an invite.
    """
    try:
        return Invite.model_validate_json(sys.stdin.read() if path == Path("-") else path.read_text())
    except OSError:
        raise SettingsError(f"Expected an invite, got {path}, which cannot be read.") from None
    except ValueError:
        raise SettingsError(
            f"Expected an invite in {path}, got something else.", hint="Ask the server's operator for a new one."
        ) from None
