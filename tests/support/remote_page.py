"""A gateway over TLS with the server's page behind it, a SuperLink that notes what reaches it, and certificates."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from server.certificate_authority import issue_node, issue_server, public_pem
from server.dashboard.remote_page import remote_site
from server.dashboard.watch import Watch
from server.flower.control import Control
from server.gateway.enrolment import Enrolment
from server.gateway.operators.page_socket import listening_on, page_socket
from server.gateway.operators.passage import OperatorLimits
from server.gateway.process import operator_routes, tls_config
from server.gateway.proxy import Limits, build_gateway
from server.gateway.refusals import Refusals
from server.operator.actions import Operator
from server.operator.facts import status_facts
from server.operator.remote_operators import issue_certificate
from shared.web.process import server_of
from simulations.e2e.federation import free_port
from tests.support.enrolling_gateway import Flower
from tests.support.fleet_in_memory import AnyCalls
from tests.support.served import HOST, served, serving
from tests.support.server_page import ServerInPieces

ROOT = Operator("root", "command line")
WITHIN_S = 10.0


class Notes:
    """An application that notes what reaches it."""

    def __init__(self) -> None:
        self.seen = list[tuple[str, str, bytes, dict[str, str]]]()
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "DELETE"])])

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode()
        self.seen.append((request.method, path, await request.body(), dict(request.headers)))
        return PlainTextResponse("reached")


@dataclass
class RemotePage:
    """A federation whose gateway is open to operators."""

    folder: Path
    server: ServerInPieces
    port: int
    superlink: Notes = field(default_factory=Notes)

    @property
    def base(self) -> str:
        return f"https://{HOST}:{self.port}"

    def operator(self, name: str, *, may_act: bool = False, now: datetime | None = None) -> Path:
        """Issue a certificate of one day, and return the file with its key."""
        home, store = self.server.home, self.server.store
        issued = issue_certificate(home, store, name, ROOT, days=1, may_act=may_act, now=now)
        return self._written(f"{name}-{issued.serial}", issued.as_pem())

    def node(self, name: str = "harbour", key: ec.EllipticCurvePrivateKey | None = None) -> Path:
        """Enrol a node, and return the file with its key and certificate."""
        key, now = key or ec.generate_private_key(ec.SECP384R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA384())
        self.server.store.invite(name, f"token of {name}", now + timedelta(days=1))
        self.server.store.enrol(f"token of {name}", public_pem(key.public_key()), 77, now)
        pem = request.public_bytes(serialization.Encoding.PEM)
        return self._written(name, key_pem(key) + issue_node(self.server.home.keys, name, pem))

    def context(self, certificate: Path | None) -> ssl.SSLContext:
        """Return a client's TLS that shows a certificate, or none."""
        context = ssl.create_default_context(cafile=self.server.home.keys / "authority.crt")
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def browser(self, certificate: Path | None, **of_client: Any) -> httpx.Client:
        """Return a client that keeps cookies, as a browser does."""
        return httpx.Client(base_url=self.base, verify=self.context(certificate), timeout=WITHIN_S, **of_client)

    def raw(self, certificate: Path | None) -> ssl.SSLSocket:
        """Open a TLS connection."""
        plain = socket.create_connection((HOST, self.port), WITHIN_S)
        return self.context(certificate).wrap_socket(plain, server_hostname=HOST)

    def says(self, certificate: Path | None, request: bytes) -> bytes:
        """Send bytes over a connection of its own, and return all that comes back until it is closed."""
        answer = b""
        with self.raw(certificate) as connection:
            connection.sendall(request)
            with suppress(OSError):
                while part := connection.recv(2**16):
                    answer += part
        return answer

    def _written(self, name: str, content: bytes) -> Path:
        path = self.folder / f"{name}.pem"
        path.write_bytes(content)
        return path


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as text."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextmanager
def remote_page(
    folder: Path, *, page: ASGIApp | None = None, limits: OperatorLimits | None = None, is_open: bool = True
) -> Iterator[RemotePage]:
    """Serve a gateway and the page behind it until the block ends.

    Args:
        folder: an empty one.
        page: instead of the server's own.
        limits: of operators.
        is_open: whether server.toml opens the page.
    """
    server = ServerInPieces(folder / "federation")
    issue_server(server.home.keys, [HOST])
    opened = RemotePage(folder, server, free_port())
    lines = f'hosts = ["{HOST}"]\nport = {opened.port}\noperators = {str(is_open).lower()}\n'
    server.home.config.write_text(lines)
    settings = server.home.settings()
    refusals, enrolment = Refusals(), Enrolment(server.store, server.home, cast(Control, Flower()))
    gateway = build_gateway(
        "http://superlink",
        Limits(),
        admit=enrolment.admit,
        calls=AnyCalls(),
        routes=[*enrolment.routes(), *operator_routes(server.home, settings, server.store, refusals, limits)],
        refusals=refusals,
        transport=httpx.ASGITransport(opened.superlink.app),
    )
    facts = lambda: status_facts(server.home) | {"state": "runs"}  # noqa: E731
    watch = Watch(server.home, server.store, seen=server.seen, facts=facts)
    with ExitStack() as stack:
        stack.callback(server.store.close)
        listening = stack.enter_context(listening_on(page_socket(server.home.running)))
        site = remote_site(settings, watch)
        stack.enter_context(serving(server_of(site if page is None else cast(Starlette, page)), [listening]))
        config = tls_config(
            gateway, server.home.keys, host=HOST, port=opened.port, refusals=refusals, operators=settings.operators
        )
        stack.enter_context(served(config))
        yield opened
