"""Tells which operator a request comes from, by its connection's certificate and the list of good ones."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Scope

from server.gateway.client_certificate import client_certificate
from server.operator_authority import operators_certificate
from server.run_store.operators import OperatorCertificate, OperatorStore

log = logging.getLogger(__name__)
NAME_HEADER, SERIAL_HEADER, ADDRESS_HEADER = "fedvault-operator", "fedvault-certificate", "fedvault-address"
"""What the gateway tells the page; from outside no such header goes on."""


class OperatorAdmission:
    """Decides whether a connection's certificate opens the page.

    Guarantee: the page opens for a certificate of the operators' authority that is listed, not revoked and not over.

    Args:
        operators: certificates that were issued.
        authority: of operators, as PEM.
        now: the time.
    """

    def __init__(
        self, operators: OperatorStore, authority: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._operators, self._authority, self._now = operators, authority, now

    def operator(self, scope: Scope) -> OperatorCertificate | None:
        """Return whose certificate a request's connection has shown, as of now."""
        shown, now = client_certificate(scope), self._now()
        certificate = None if shown is None else operators_certificate(shown, self._authority)
        if certificate is None or not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            return None
        try:
            return self._operators.valid(f"{certificate.serial_number:x}", now)
        except SQLAlchemyError as error:  # a database that is away for a while lets nobody in
            log.warning("Operators are refused, for the run store does not answer: %s", type(error).__name__)
            return None


def named_headers(certificate: OperatorCertificate, address: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that name an operator to the page."""
    values = {NAME_HEADER: certificate.name, SERIAL_HEADER: certificate.serial, ADDRESS_HEADER: address}
    return [(name.encode(), value.encode()) for name, value in values.items()]
