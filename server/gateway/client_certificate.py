"""Gives the application the certificate that a TLS client showed: ASGI's TLS extension, which uvicorn does not fill."""

import asyncio
import ssl

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.certificate_authority import public_pem


class WithClientCertificate:
    """Passes the client's certificate (DER) to an application, or that there was none."""

    def __init__(self, app: ASGIApp, certificate: bytes | None) -> None:
        self._app, self._certificate = app, certificate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the certificate to the request and pass it on."""
        chain = [self._certificate] if self._certificate else []
        scope.setdefault("extensions", {})["tls"] = {"client_cert_chain": chain}
        await self._app(scope, receive, send)


class ClientCertificateProtocol(H11Protocol):
    """Extends uvicorn's HTTP protocol by the certificate of each connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the client's certificate once per connection."""
        super().connection_made(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app = WithClientCertificate(self.app, certificate)


def client_key(request: Request) -> str | None:
    """Return the public key (PEM) of the client's certificate, which TLS has checked; None without one."""
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
    if not chain:
        return None
    key = x509.load_der_x509_certificate(chain[0]).public_key()
    return public_pem(key) if isinstance(key, ec.EllipticCurvePublicKey) else None
