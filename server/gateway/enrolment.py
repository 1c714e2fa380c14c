"""Lets organisations in: one invite, one key that the node made itself, one certificate."""

import base64
import binascii
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from server.certificate_authority import (
    issue_node,
    keep_node_certificate,
    public_pem,
    requested_key,
    trusted_authorities,
)
from server.flower.control import Control
from server.gateway.bodies import Pace, TooLarge, TooSlow, declared_bytes, read_whole
from server.gateway.client_certificate import client_key
from server.gateway.refusals import Refusals, origin
from server.gateway.registration import ensure_registered
from server.gateway.turns import Busy, TokenBuckets
from server.run_store.store import Store
from server.run_store.values import NO_NUMBER, Node
from server.settings import Home
from shared.errors import FedVaultError, PolicyRefusal, RunError, SettingsError
from shared.files import named_after, write_private
from shared.protocol.invite import ENROL_PATH, RENEW_PATH, Invite

log = logging.getLogger(__name__)
INVITE_LIFETIME = timedelta(days=7)
TOKEN_BYTES = 32
LARGEST_REQUEST_BYTES = 16 * 1024
PACE = Pace(grace_s=10.0, bytes_per_s=float("inf"))
TOO_MANY, SERVER_ERROR, RETRY = 429, 500, {"Retry-After": "5"}
FAILURES = (
    *(FedVaultError, ValueError, KeyError, TypeError, RecursionError),
    *(TooLarge, TooSlow, Busy, ClientDisconnect),
)
TRIES_PER_S, TRIES_AT_ONCE = 0.2, 10
NODE_KEY_HEADER = "flwr-public-key"


def invite(store: Store, home: Home, name: str, *, lifetime: timedelta = INVITE_LIFETIME) -> Invite:
    """Let a node of this name enrol, and return the invite that it needs.

    Guarantee: an invite lets one node in, once, until it expires; only a hash of its token is kept.
    Guarantee: whoever lost the answer may ask again with the same invite and the same key, and with no other.

    Raises:
        SettingsError: the name is taken, or there is no authority yet.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    store.invite(name, _hash(token), datetime.now(UTC) + lifetime)
    return _invite_with(token, home, name, lifetime)


def invite_back(store: Store, home: Home, name: str, *, lifetime: timedelta = INVITE_LIFETIME) -> Invite:
    """Let an enrolled node have a new certificate without its old one, which ended while it was off.

    Guarantee: a node that is invited back keeps its key, its name and Flower's number, and no other key gets in.

    Raises:
        SettingsError: no node of this name is enrolled, or it was revoked.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    store.invite_back(name, _hash(token), datetime.now(UTC) + lifetime)
    return _invite_with(token, home, name, lifetime, renews=True)


def _invite_with(token: str, home: Home, name: str, lifetime: timedelta, *, renews: bool = False) -> Invite:
    settings = home.settings()
    return Invite(
        name=name,
        server=f"{settings.hosts[0]}:{settings.port}",
        authority=trusted_authorities(home.keys),
        token=token,
        expires=datetime.now(UTC) + lifetime,
        renews=renews,
    )


class Enrolment:
    """Answers requests for enrolment and renewal.

    Args:
        store: invites and nodes.
        home: the authority.
        control: registers keys with Flower.
        now: the time.
        refusals: counts what is refused.
        clock: seconds that no setting of the time changes.
        pace: the slowest that a request may come.
    """

    def __init__(
        self,
        store: Store,
        home: Home,
        control: Control,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        refusals: Refusals | None = None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace = PACE,
    ) -> None:
        self._store, self._home, self._control, self._now = store, home, control, now
        self._refusals, self._pace = refusals or Refusals(), pace
        self._tries = TokenBuckets(TRIES_PER_S, TRIES_AT_ONCE, clock)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the requests that the gateway answers by itself."""
        return [
            Route(ENROL_PATH, self._answering(self._enrol), methods=["POST"]),
            Route(RENEW_PATH, self._answering(self._renew), methods=["POST"]),
        ]

    def admit(self, request: Request) -> Node | None:
        """Return the node whose certificate a request shows, if it is not revoked and the header has the same key."""
        key = client_key(request)
        try:
            shown = base64.b64decode(request.headers.get(NODE_KEY_HEADER, ""), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        if key is None or shown.strip() != key.strip():
            return None
        return self._node_of(key)

    def number_of(self, request: Request) -> int | None:
        """Return Flower's number of the node whose certificate a request shows, if it is not revoked."""
        key = client_key(request)
        node = None if key is None else self._node_of(key)
        return None if node is None else node.node_id

    def _node_of(self, key: str) -> Node | None:
        node = self._store.node_by_key(key)
        return node if node is not None and node.revoked is None else None

    def _answering(self, decide: Callable[[Request, bytes], dict[str, object]]) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            address = origin(request.client.host if request.client else "unknown")
            try:
                return JSONResponse(await self._decided(request, address, decide))
            except FAILURES as error:
                status, text = _as_answer(error)
                self._refusals.count(address, f"{status} enrolment: {error if status >= SERVER_ERROR else text}")
                return JSONResponse({"error": text}, status, headers=RETRY if status == TOO_MANY else None)

        return answer

    async def _decided(
        self, request: Request, address: str, decide: Callable[[Request, bytes], dict[str, object]]
    ) -> dict[str, object]:
        if declared_bytes(request, 0) > LARGEST_REQUEST_BYTES:
            raise TooLarge
        body = await read_whole(request, LARGEST_REQUEST_BYTES, self._pace)
        if not self._tries.take(await run_in_threadpool(self._whose_try, request, body, address)):
            raise Busy
        return await run_in_threadpool(decide, request, body)

    def _whose_try(self, request: Request, body: bytes, address: str) -> str:
        """Return what a try counts against: a node's key, or a valid invite, or else the address.

        Guarantee: whoever guesses invites keeps nobody behind the same address from joining.
        """
        key = client_key(request)
        if key is not None:
            return key
        try:
            token = _hash(str(json.loads(body)["token"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return address
        return token if self._store.knows_invite(token) else address

    def _enrol(self, request: Request, body: bytes) -> dict[str, object]:
        del request
        asked = json.loads(body)
        token, csr = _hash(str(asked["token"])), str(asked["csr"]).encode()
        key = public_pem(requested_key(csr))
        # ours first: no stranger's key reaches Flower, which takes none a second time
        node = self._store.enrol(token, key, NO_NUMBER, self._now())
        node_id = ensure_registered(self._store, self._control, node)
        log.info("%s enrolled.", node.name)
        return {"name": node.name, "node_id": str(node_id), **self._certified(node.name, csr)}

    def _renew(self, request: Request, body: bytes) -> dict[str, object]:
        csr, key = str(json.loads(body)["csr"]).encode(), client_key(request)
        node = None if key is None else self._node_of(key)
        if node is None or public_pem(requested_key(csr)) != key:
            raise PolicyRefusal("Expected a node that is enrolled and not revoked.")
        log.info("%s renewed its certificate.", node.name)
        return {"name": node.name, **self._certified(node.name, csr)}

    def _certified(self, name: str, csr: bytes) -> dict[str, object]:
        """Return a node's new certificate, and the authorities that it is to trust from now on."""
        keys = self._home.keys
        try:
            certificate = issue_node(keys, name, csr, now=self._now())
        except SettingsError as error:
            # the request was looked at before: what is left is an authority that is gone or about to end
            log.error("%s gets no certificate: %s %s", name, error, error.hint)
            raise RunError("no certificate") from None
        keep_node_certificate(keys, name, certificate)
        return {"certificate": certificate.decode(), "authority": trusted_authorities(keys)}


def _as_answer(error: Exception) -> tuple[int, str]:
    match error:
        case PolicyRefusal():
            return 403, str(error)
        case TooLarge():
            return 413, "body too large"
        case TooSlow() | ClientDisconnect():
            return 408, "too slow"
        case Busy():
            return TOO_MANY, "too many requests"
        case RunError():
            return 503, "not ready"
    return 400, "not a valid request"


def revoke(store: Store, control: Control | None, name: str) -> None:
    """Shut a node out at once, at the gateway and in Flower.

    Guarantee: a revoked node is refused from its next request on.

    Raises:
        SettingsError: no such node.
    """
    node = next((node for node in store.nodes() if node.name == name), None)
    store.revoke(name)
    if control is not None and node is not None and node.node_id:
        try:
            control.unregister(node.node_id)
        except RunError as error:
            log.warning("The gateway refuses %s; Flower could not be reached: %s", name, error)


def invite_file(name: str) -> str:
    """Return the name of the file that a node's invite is written to."""
    return f"{named_after(name)}.invite.json"


def write_invite(invite: Invite, path: Path) -> None:
    """Write an invite readable by this user alone: whoever has it can join."""
    write_private(path, invite.as_json().encode())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
