"""Issue and revoke certificates of operators who see the page from other machines; the event log has who did it."""

import re
from datetime import UTC, datetime, timedelta

from server.operator.actions import Operator, note
from server.operator_authority import NewCertificate, issue
from server.run_store.operators import OperatorCertificate
from server.run_store.store import Store
from server.settings import Home
from shared.errors import SettingsError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DAYS, MOST_DAYS = 90, 397


def issue_certificate(
    home: Home,
    store: Store,
    name: str,
    operator: Operator,
    *,
    days: int = DAYS,
    may_act: bool = False,
    now: datetime | None = None,
) -> NewCertificate:
    """Make a key and a certificate for an operator, and list it; whoever has both may see the page.

    Guarantee: an operator's certificate only shows, unless whoever issued it allowed actions.

    Raises:
        SettingsError: the name is none, or the authority cannot be read.
    """
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"Expected a name of letters, digits, dots, dashes and underscores, at most 64, got {name[:80]!r}."
        )
    moment = now or datetime.now(UTC)
    issued = issue(home.keys, name, timedelta(days=days), now=moment)
    store.operators.add(
        OperatorCertificate(
            serial=issued.serial,
            name=name,
            may_act=may_act,
            issued=moment.isoformat(timespec="milliseconds"),
            issued_by=operator.who,
            expires=issued.certificate.not_valid_after_utc.isoformat(),
            revoked=None,
        )
    )
    note(store, operator, "operator", person=name, certificate=issued.serial, days=days, may_act=may_act)
    return issued


def revoke_certificates(store: Store, name: str, operator: Operator) -> None:
    """Shut an operator out, from the next request on; open pages end within a second.

    Raises:
        SettingsError: no operator of this name has a certificate.
    """
    for serial in store.operators.revoke(name):
        note(store, operator, "revoke operator", person=name, certificate=serial)
