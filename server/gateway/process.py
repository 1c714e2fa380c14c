"""The gateway process: TLS outside, Flower's SuperLink inside, enrolment and metrics beside it."""

import logging
import math
import resource
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvicorn
from starlette.routing import BaseRoute

from server.certificate_authority import SERVER, trusted_authorities
from server.certificate_ends import CertificateEnd, announce_daily, certificate_ends
from server.flower.control import Control
from server.flower.reply_size import largest_object_bytes
from server.flower.superlink import HOST, SECRET_HEADER
from server.gateway.connections import Entrance
from server.gateway.door import ConnectionLimits
from server.gateway.enrolment import Enrolment
from server.gateway.fleet_calls import FleetCalls
from server.gateway.handed_out import HandedOut
from server.gateway.long_poll import LongPoll, PresentNodes
from server.gateway.metrics import build_metrics_app
from server.gateway.operators.admission import OperatorAdmission
from server.gateway.operators.page_socket import page_socket, short_name
from server.gateway.operators.passage import OperatorLimits, Passage
from server.gateway.proxy import Limits, build_gateway
from server.gateway.refusals import Refusals
from server.gateway.registration import synchronise_nodes
from server.mailbox.fleet_messages import FleetMessages
from server.mailbox.mailbox import Mailbox
from server.operator_authority import operators_authority
from server.run_store.store import Store
from server.settings import Home, ServerSettings
from server.wake_pipe import open_pipe, pipe_of
from shared.errors import RunError, SettingsError
from shared.processes.faults import Faults

log = logging.getLogger(__name__)
SYNCHRONISE_EVERY_S, AGAIN_S = 8.0, 2.0
"""How often Flower is asked for its nodes, and told who waits; and how often while it does not answer."""
METRICS_AGAIN_S = 60.0
STOP_WITHIN_S = 3
BURST_S = 4
CONNECTIONS_BURST_S = 10
MOST_DESCRIPTORS = 2**16
OTHER_DESCRIPTORS = 384
"""For the SuperLink, the run store, files, and connections that the kernel hands over before they are counted."""
BACKLOG = 256


class Presence:
    """Keeps which nodes are connected, as Flower last reported, for Prometheus; and which troubles were logged.

    Args:
        waiting: the nodes that wait, of which Flower is told.
    """

    def __init__(self, waiting: PresentNodes | None = None) -> None:
        self.nodes: set[int] | None = None
        self._waiting = waiting or PresentNodes(time.monotonic)
        self._logged: dict[str, str] = {}

    def look(self, store: Store, control: Control) -> None:
        """Make Flower follow the run store, and note who is there; the trouble with a node is logged once."""
        try:
            self._waiting.tell(control.present)
            self.nodes, troubles = synchronise_nodes(store, control)
        except RunError as error:
            self.nodes = None
            log.debug("Flower is not there yet: %s", error)
            return
        for name in troubles.keys() - self._logged.keys():
            log.warning("%s is not in Flower's list of nodes as it should be: %s", name, troubles[name])
        self._logged = troubles


def serve(home: Home) -> None:
    """Serve the gateway until SIGTERM.

    Raises:
        SettingsError: there are no certificates.
    """
    settings, store, present = home.settings(), Store(home.database()), PresentNodes(time.monotonic)
    presence = Presence(present)
    control = Control(home)
    refusals = Refusals()
    enrolment = Enrolment(store, home, control, refusals=refusals)
    waiting = LongPoll(
        open_pipe(pipe_of(home.running)), enrolment.number_of, time.monotonic, refusals=refusals, present=present
    )
    limits = Limits(
        body_bytes=settings.largest_body_bytes,
        bytes_at_once=settings.largest_body_bytes,
        requests_per_s=settings.requests_per_s,
        burst=int(settings.requests_per_s * BURST_S),
    )
    application = build_gateway(
        f"http://{HOST}:{settings.superlink_port}",
        limits,
        admit=enrolment.admit,
        calls=FleetCalls(HandedOut(home.flower / "handed-out"), partial(largest_object_bytes, home)),
        messages=FleetMessages(Mailbox(home.mailbox)),
        headers={SECRET_HEADER: home.secret()},
        leaves=present.forget,
        routes=[*enrolment.routes(), waiting.route(), *operator_routes(home, settings, store, refusals)],
        refusals=refusals,
    )

    def ends() -> list[CertificateEnd]:
        return certificate_ends(home.keys, store.enrolled_names())

    threading.Thread(target=announce_daily, args=(ends, threading.Event()), daemon=True).start()
    if settings.metrics_port:
        metrics = metrics_config(settings, store, presence, ends)
        threading.Thread(target=keep_serving_metrics, args=(metrics, threading.Event()), daemon=True).start()
    # a client of its own: httpx clients are not for two threads at once
    threading.Thread(
        target=_keep_synchronised, args=(store, Control(home), presence, threading.Event()), daemon=True
    ).start()
    config = tls_config(
        application,
        home.keys,
        host=settings.listen,
        port=settings.port,
        limits=connection_limits(settings, raise_descriptor_limit()),
        refusals=refusals,
        operators=settings.operators,
    )
    uvicorn.Server(config).run()


def operator_routes(
    home: Home, settings: ServerSettings, store: Store, refusals: Refusals, limits: OperatorLimits | None = None
) -> Sequence[BaseRoute]:
    """Return the way to the server's page, if server.toml opens it.

    Guarantee: no operator's certificate opens anything unless server.toml says so.
    """
    if not settings.operators:
        return []
    admission = OperatorAdmission(store.operators, operators_authority(home.keys))
    return Passage(short_name(page_socket(home.running)), admission, limits=limits, refusals=refusals).routes()


def raise_descriptor_limit() -> int:
    """Let this process open as many files and sockets as it may, and return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connection_limits(settings: ServerSettings, descriptors: int) -> ConnectionLimits:
    """Return the limits of connections; strangers have half of what the descriptors allow at the most."""
    in_all = max(descriptors - OTHER_DESCRIPTORS, descriptors // 2)
    return ConnectionLimits(
        in_all=in_all,
        strangers=min(settings.connections_without_certificate, in_all // 2),
        per_address=settings.connections_per_address,
        per_s=settings.connections_per_s,
        burst=max(1, int(settings.connections_per_s * CONNECTIONS_BURST_S)),
    )


def tls_config(
    application: object,
    keys: Path,
    *,
    host: str,
    port: int,
    limits: ConnectionLimits | None = None,
    refusals: Refusals | None = None,
    operators: bool = False,
) -> uvicorn.Config:
    """Return uvicorn's settings, with connections that are bounded, and TLS by the federation's certificates.

    Raises:
        SettingsError: there are no certificates.
    """
    bounds = limits or ConnectionLimits()
    entrance = Entrance(tls_context(keys, operators=operators), bounds, refusals or Refusals())
    return uvicorn.Config(
        application,  # type: ignore[arg-type]
        host=host,
        port=port,
        http=entrance.protocol,  # type: ignore[arg-type]
        # uvloop reads on while a connection's protocol is changed to TLS, and loses what it read
        loop="asyncio",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        # a front passes TLS through: whatever names an address is the client's own word
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=math.ceil(bounds.idle_s),
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )


def tls_context(keys: Path, *, operators: bool = False) -> ssl.SSLContext:
    """Return the server's TLS: 1.2 or newer, and a client certificate of the federation's own authorities.

    With `operators` also one of the operators' authority; otherwise such a certificate ends the handshake.

    A connection without a certificate is accepted, for enrolment; the application refuses it everything else.

    Raises:
        SettingsError: there are no certificates.
    """
    certificate, key = keys / f"{SERVER}.crt", keys / f"{SERVER}.key"
    if not (certificate.exists() and key.exists()):
        raise SettingsError(f"Expected certificates in {keys}, got none.", hint="Run: fedvault-server init")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    own = operators_authority(keys) if operators else ""
    context.load_verify_locations(cadata=trusted_authorities(keys) + own)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def metrics_config(
    settings: ServerSettings, store: Store, presence: Presence, ends: Callable[[], Sequence[CertificateEnd]]
) -> uvicorn.Config:
    """Return uvicorn's settings for the metrics: plain HTTP, at the address that server.toml names."""
    application = build_metrics_app(store, lambda: presence.nodes, ends)
    host, port = settings.metrics_listen, settings.metrics_port
    return uvicorn.Config(application, host=host, port=port, log_config=None, ws="none")


def keep_serving_metrics(config: uvicorn.Config, stop: threading.Event) -> None:
    """Serve the metrics; while another program has their port, say so once, and try again every minute."""
    logged = False
    while True:
        with suppress(SystemExit):  # what uvicorn makes of a port that it does not get
            uvicorn.Server(config).run()
            return
        if not logged:
            logged = True
            log.error(
                "The metrics are not served: another program has port %d of %s. Stop it, or change metrics_port in "
                "server.toml.",
                config.port,
                config.host,
            )
        if stop.wait(METRICS_AGAIN_S):
            return


def _keep_synchronised(store: Store, control: Control, presence: Presence, stop: threading.Event) -> None:
    faults = Faults()
    while not stop.wait(AGAIN_S if presence.nodes is None else SYNCHRONISE_EVERY_S):
        with faults.tolerated("Making Flower follow the run store", "It is tried again."):
            presence.look(store, control)
