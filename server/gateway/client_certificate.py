"""Gives the application the certificate that a TLS client showed: ASGI's TLS extension, which uvicorn does not fill."""

from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.certificate_authority import public_pem
from server.operator_authority import bears_mark

REMEMBERED = 1024
BOTH = frozenset({b"content-length", b"transfer-encoding"})


class WithClientCertificate:
    """Passes the client's certificate (DER) to an application, or that there was none.

    Without one a connection serves one request: whatever else it asks takes another.

    Guarantee: a request whose end could be found in two ways is the last of its connection.
    """

    def __init__(self, app: ASGIApp, certificate: bytes | None) -> None:
        self._app, self._certificate = app, certificate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the certificate to the request and pass it on."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        chain = [self._certificate] if self._certificate else []
        scope.setdefault("extensions", {})["tls"] = {"client_cert_chain": chain}
        await self._app(scope, receive, send if chain and not _ends_in_two_ways(scope) else send_and_close)


def _ends_in_two_ways(scope: Scope) -> bool:
    """Return true if a header has chunks and a length as well; what is no HTTP at all does not come this far."""
    return {name for name, _ in scope.get("headers", ())} >= BOTH


def client_certificate(scope: Scope) -> bytes | None:
    """Return the client's certificate (DER), which TLS has checked; None without one."""
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
    return chain[0] if chain else None


def client_key(request: Request) -> str | None:
    """Return the public key (PEM) of a node's certificate, which TLS has checked; None without one.

    Guarantee: an operator's certificate counts as none where a node's is asked for, whatever its key.
    """
    certificate = client_certificate(request.scope)
    return None if certificate is None else key_of(certificate)


@lru_cache(maxsize=REMEMBERED)
def key_of(certificate: bytes) -> str | None:
    """Return the public key (PEM) of a certificate (DER); None if it is an operator's, or of another kind than ours."""
    parsed = x509.load_der_x509_certificate(certificate)
    key = parsed.public_key()
    return public_pem(key) if isinstance(key, ec.EllipticCurvePublicKey) and not bears_mark(parsed) else None
