"""Takes connections in: each has a time for its TLS handshake, for a request's header, and for reading an answer.

What is too slow or too much is closed and counted; nothing that a stranger sends is worth a log line of its own.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr

from server.gateway.client_certificate import WithClientCertificate, key_of
from server.gateway.door import ConnectionLimits, Door
from server.gateway.refusals import Refusals, origin

log_of_uvicorn = logging.getLogger("uvicorn.protocol")
WRITE_BUFFER_BYTES = 64 * 2**10


class Entrance:
    """Makes uvicorn's protocol of each new connection.

    Args:
        context: the server's TLS.
        limits: of connections.
        refusals: counts what is closed.
        clock: seconds.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        limits: ConnectionLimits,
        refusals: Refusals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context, self.limits, self.refusals = context, limits, refusals
        self.door = Door(limits, clock)
        # its warnings are one for each bad request; faults of ours still come through
        log_of_uvicorn.setLevel(logging.ERROR)

    def protocol(self, **of_uvicorn: Any) -> asyncio.Protocol:
        """Return the protocol of one connection, as uvicorn asks for it."""
        return Arrival(self, BoundedHttp(self, **of_uvicorn))

    def close(self, out: tuple[Any, str] | None) -> bool:
        """End the connection that has to go, if one has; return whether there was one."""
        if out is not None:
            connection, why = out
            connection.end(why)
        return out is not None


class Arrival(asyncio.Protocol):
    """A connection from its acceptance to the end of its TLS handshake."""

    def __init__(self, entrance: Entrance, http: "BoundedHttp") -> None:
        self._entrance, self._http = entrance, http
        self._early: list[bytes] = []
        self._lost = self._handed_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Shake hands, if there is room."""
        transport.pause_reading()
        self._transport = transport
        peer = get_remote_addr(transport)
        self._http.address = origin(peer[0]) if peer else "unknown"
        self._http.underneath = transport
        entrance = self._entrance
        entrance.close(entrance.door.arrives(self._http, self._http.address))
        if transport.is_closing():
            return
        loop = asyncio.get_running_loop()
        # the task holds itself until its deadline at the latest
        self._shaking = loop.create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        limits, tls = self._entrance.limits, None
        try:
            tls = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                self._entrance.context,
                server_side=True,
                ssl_handshake_timeout=limits.handshake_s,
                ssl_shutdown_timeout=limits.goodbye_s,
            )
        except ConnectionAbortedError:
            self._http.end(f"no TLS handshake within {limits.handshake_s:g} s")
        except ssl.SSLError as error:
            self._http.end(f"no TLS: {getattr(error, 'verify_message', None) or error.reason}")
        except ConnectionError:
            pass  # whoever goes again, as a health check does, has done nothing wrong
        if tls is None or self._lost:
            self._entrance.door.leaves(self._http)
            return
        self._handed_over = True
        tls.set_protocol(self._http)
        self._http.connection_made(tls)
        for data in self._early:
            self._http.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Keep what came with the end of the handshake."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._lost = True
        self._entrance.door.leaves(self._http)
        if self._handed_over:
            self._http.connection_lost(exc)


class BoundedHttp(H11Protocol):
    """Extends uvicorn's HTTP protocol by the client's certificate and by deadlines."""

    address = "unknown"
    underneath: asyncio.Transport

    def __init__(self, entrance: Entrance, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.logger = log_of_uvicorn
        self._entrance, self._ended = entrance, False
        self._deadline: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._awaited = ""
        self._is_node = self._between_requests = False

    def end(self, why: str) -> None:
        """Close the connection at once, and count it."""
        if not self._ended:
            self._ended = True
            self._entrance.refusals.count(self.address, why)
            self._entrance.door.leaves(self)
            self.underneath.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the client's certificate once, and wait for a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app = WithClientCertificate(self.app, certificate)
        self._is_node = certificate is not None
        if certificate is not None:
            self._entrance.close(self._entrance.door.shows(self, key_of(certificate) or certificate.hex()))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        self._entrance.door.leaves(self)
        for timer in (self._deadline, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and see what is awaited next."""
        super().data_received(data)
        self._between_requests = False
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that nobody reads."""
        super().on_response_complete()
        self._between_requests = self._is_node
        self._watch()

    def pause_writing(self) -> None:
        """Give the client a time to read on."""
        super().pause_writing()
        limits = self._entrance.limits
        self._writing = self.loop.call_later(limits.write_s, self.end, f"read nothing for {limits.write_s:g} s")

    def resume_writing(self) -> None:
        """Take that time back."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and count it."""
        self._entrance.refusals.count(self.address, "400 no valid request")
        super().send_400_response(msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a request to speak another protocol is answered as any other."""

    def _watch(self) -> None:
        """Set the deadline of what is awaited now: a header, or the rest of a body after its answer."""
        state, awaited, limits = self.conn.their_state, "", self._entrance.limits
        seconds = limits.header_s
        if state is h11.IDLE and self._between_requests:
            awaited, seconds = f"no request within {limits.idle_s:g} s", limits.idle_s
        elif state is h11.IDLE:
            awaited = f"no whole request header within {limits.header_s:g} s"
        elif state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete:
            awaited = f"a refused body took more than {limits.header_s:g} s"
        if awaited == self._awaited:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._awaited, self._deadline = awaited, None
        if awaited:
            self._deadline = self.loop.call_later(seconds, self.end, awaited)
