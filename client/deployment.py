"""Tells which half of a node runs here.

| `FEDVAULT_DEPLOYMENT` | where | sees |
|---|---|---|
| not set | a machine that runs both processes | everything |
| `vault` | the container without a network | records, ledger, socket; no key of the node, no server |
| `link` | the container without records | key, server, socket; no ledger, no records |
| `dashboard` | the container of the operator's page | the operator's socket; no ledger, no records, no key |
"""

import os
from enum import StrEnum

from shared.errors import SettingsError

VARIABLE, EARLIER_VARIABLE = "FEDVAULT_DEPLOYMENT", "FEDVAULT_SIDE"


class Deployment(StrEnum):
    """The halves of a node that run here."""

    BOTH = ""
    VAULT = "vault"
    LINK = "link"
    DASHBOARD = "dashboard"

    @property
    def has_vault(self) -> bool:
        """True where records and ledger are."""
        return self in (Deployment.BOTH, Deployment.VAULT)

    @property
    def has_link(self) -> bool:
        """True where the node's key and the network are."""
        return self in (Deployment.BOTH, Deployment.LINK)


def deployment() -> Deployment:
    """Return what the environment says runs here.

    Raises:
        SettingsError: it says something else, or says it under the variable's earlier name.
    """
    if EARLIER_VARIABLE in os.environ:  # ignored, it would open to one half what only the other one may see
        raise SettingsError(f"Expected {VARIABLE}, got {EARLIER_VARIABLE}, its earlier name.", hint="Rename it.")
    value = os.environ.get(VARIABLE, "")
    if value not in set(Deployment):
        raise SettingsError(
            f"Expected {VARIABLE} to be vault, link or dashboard, or not set, got {VARIABLE}={value!r}."
        )
    return Deployment(value)
