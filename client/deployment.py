"""Which half of a node this process may see.

| `FEDVAULT_SIDE` | where | sees |
|---|---|---|
| not set | a machine that runs both processes | everything |
| `vault` | the container without a network | records, ledger, socket; no key of the node, no server |
| `link` | the container without records | key, server, socket; no ledger, no records |
"""

import os
from enum import StrEnum

from shared.errors import SettingsError

SIDE = "FEDVAULT_SIDE"


class Side(StrEnum):
    """A half of a node, or both."""

    WHOLE = ""
    VAULT = "vault"
    LINK = "link"

    @property
    def has_vault(self) -> bool:
        """Whether records and ledger are here."""
        return self is not Side.LINK

    @property
    def has_link(self) -> bool:
        """Whether the node's key and the network are here."""
        return self is not Side.VAULT


def side() -> Side:
    """The half that the environment names.

    Raises:
        SettingsError: it names none.
    """
    found = os.environ.get(SIDE, "")
    if found not in set(Side):
        raise SettingsError(f"Expected {SIDE} to be vault or link, or not set, got {SIDE}={found!r}.")
    return Side(found)
