"""The page for operators at other machines: a process of its own, on a socket that the gateway alone speaks to."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Scope

from server.dashboard.operator_sessions import OperatorSessions
from server.dashboard.site import ServerSite, server_pages
from server.dashboard.watch import Watch
from server.gateway.operators.admission import ADDRESS_HEADER, NAME_HEADER, SERIAL_HEADER
from server.gateway.operators.page_socket import listening_on, page_socket
from server.gateway.operators.passage import ROOT
from server.operator.actions import Operator, note
from server.run_store.operators import OperatorCertificate
from server.run_store.store import Store
from server.settings import Home, ServerSettings
from shared.web.guard import Guard
from shared.web.process import behind, server_of
from shared.web.sessions import Caller, Rate, Session

HTTPS_PORT = 443


def serve(home: Home) -> None:
    """Serve the page on its socket until SIGTERM."""
    with Store(home.database()) as store, listening_on(page_socket(home.running)) as opened:
        server_of(remote_site(home.settings(), Watch(home, store))).run(sockets=[opened])


def remote_site(settings: ServerSettings, watch: Watch) -> Starlette:
    """Return the page as the gateway passes requests on to it; nothing else may reach the socket that it is served on.

    Guarantee: what an operator does at another machine stands in the event log with name, certificate and address.
    """
    pages, known = server_pages(settings.hosts[0], root=ROOT), KnownOperators(watch.store)
    site = ServerSite(watch, pages, elsewhere=True)

    def entered(caller: Caller, session: Session) -> None:
        note(watch.store, Operator(caller.name, f"page, {caller.words}, session {session.label}"), "enter")

    door = Middleware(
        Guard,
        pages=pages,
        sessions=OperatorSessions(known.is_good),
        hosts=hosts_of(settings.hosts, settings.port),
        who=known.caller,
        scheme="https",
        entered=entered,
        # the gateway counts each operator's requests by themselves, and so are the sessions that each begins
        strangers=Rate(200.0, 1000),
        visitors=Rate(200.0, 1000),
    )
    return behind(door, site.routes())


class KnownOperators:
    """Operators as the gateway names them, held against the run store.

    Guarantee: an identity that the run store does not hold as good is nobody's, whoever names it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def is_good(self, serial: str) -> bool:
        """Return true for a certificate that is listed, not revoked and not over."""
        return self._certificate(serial) is not None

    def caller(self, scope: Scope) -> Caller | None:
        """Return the operator whom a request's headers name."""
        named = [
            [value.decode("latin-1") for name, value in scope["headers"] if name == wanted.encode()]
            for wanted in (SERIAL_HEADER, NAME_HEADER, ADDRESS_HEADER)
        ]
        if any(len(values) != 1 for values in named):
            return None
        (serial,), (name,), (address,) = named
        certificate = self._certificate(serial)
        if certificate is None or certificate.name != name:
            return None
        words, until = f"{address}, certificate {serial}", f"{name} until {certificate.expires[:10]}"
        return Caller(serial, words, name, certificate.may_act, until)

    def _certificate(self, serial: str) -> OperatorCertificate | None:
        try:
            return self._store.operators.valid(serial, datetime.now(UTC))
        except SQLAlchemyError:  # a database that is away for a while lets nobody in
            return None


def hosts_of(names: Sequence[str], port: int) -> list[str]:
    """Return what a browser calls a server in `Host`: names with the port, and without it where it is HTTPS's own."""
    written = [f"[{name}]" if ":" in name else name for name in map(str.lower, names)]
    return [f"{name}:{port}" for name in written] + (written if port == HTTPS_PORT else [])
