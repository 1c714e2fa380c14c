"""Reads and writes which certificates operators have: by serial number, for whom, and until when."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.run_store.tables import OperatorRow
from shared.errors import SettingsError


@dataclass(frozen=True)
class OperatorCertificate:
    """A certificate that was issued to an operator."""

    serial: str
    """In hexadecimal."""
    name: str
    may_act: bool
    """Whether it may change anything, and take an adapter; otherwise it shows."""
    issued: str
    issued_by: str
    expires: str
    revoked: str | None

    def status(self, now: datetime) -> str:
        """Return revoked, expired or valid."""
        if self.revoked:
            return "revoked"
        return "valid" if now < datetime.fromisoformat(self.expires) else "expired"


class OperatorStore:
    """The part of a run store that holds operators' certificates.

    Args:
        session: opens a transaction.
    """

    def __init__(self, session: Callable[[], AbstractContextManager[Session]]) -> None:
        self._session = session

    def add(self, certificate: OperatorCertificate) -> None:
        """Write down a certificate that is being issued."""
        with self._session() as session:
            session.add(OperatorRow(**vars(certificate)))

    def certificates(self) -> list[OperatorCertificate]:
        """Return every certificate, by name, the newest first."""
        query = select(OperatorRow).order_by(OperatorRow.name, OperatorRow.issued.desc(), OperatorRow.serial)
        with self._session() as session:
            return [_certificate(row) for row in session.scalars(query)]

    def valid(self, serial: str, now: datetime) -> OperatorCertificate | None:
        """Return the certificate of this number, if it was neither revoked nor has ended.

        Guarantee: an operator's certificate that is unknown, revoked or over opens nothing.
        """
        with self._session() as session:
            row = session.get(OperatorRow, serial)
            certificate = None if row is None else _certificate(row)
        return certificate if certificate is not None and certificate.status(now) == "valid" else None

    def ends(self, now: datetime) -> dict[str, datetime]:
        """Return when the last good certificate of each operator ends."""
        good = [one for one in self.certificates() if one.status(now) == "valid"]
        # the latest one comes last, and is the one that stays
        return {one.name: datetime.fromisoformat(one.expires) for one in sorted(good, key=lambda one: one.expires)}

    def revoke(self, name: str) -> list[str]:
        """Revoke all certificates of an operator that are not revoked yet; returns their numbers.

        Raises:
            SettingsError: no operator of this name has one.
        """
        with self._session() as session:
            rows = list(session.scalars(select(OperatorRow).where(OperatorRow.revoked.is_(None))))
            own = [row for row in rows if row.name == name]
            if not own:
                known = ", ".join(sorted({row.name for row in rows})) or "none"
                raise SettingsError(f"Expected an operator with a certificate ({known}), got {name!r}.")
            for row in own:
                row.revoked = datetime.now(UTC).isoformat(timespec="milliseconds")
            return [row.serial for row in own]


def _certificate(row: OperatorRow) -> OperatorCertificate:
    return OperatorCertificate(row.serial, row.name, row.may_act, row.issued, row.issued_by, row.expires, row.revoked)
