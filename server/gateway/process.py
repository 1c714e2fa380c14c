"""The gateway process: TLS outside, Flower's SuperLink inside, enrolment beside it, metrics on loopback."""

import logging
import ssl
import threading
import time
from pathlib import Path

import uvicorn

from server.certificate_authority import SERVER, trusted_authorities
from server.certificate_ends import CertificateEnd, announce_daily, certificate_ends
from server.flower.control import Control
from server.flower.superlink import HOST, SECRET_HEADER
from server.gateway.client_certificate import ClientCertificateProtocol
from server.gateway.enrolment import Enrolment
from server.gateway.long_poll import LongPoll
from server.gateway.metrics import build_metrics_app
from server.gateway.proxy import Limits, build_gateway
from server.gateway.registration import synchronise_nodes
from server.run_store.store import Store
from server.settings import Home
from server.wake_pipe import open_pipe, pipe_of
from shared.errors import RunError, SettingsError

log = logging.getLogger(__name__)
SYNCHRONISE_EVERY_S = 2.0
STOP_WITHIN_S = 3
BURST_S = 4


class Presence:
    """Keeps which nodes are connected, as Flower last reported, for Prometheus; and which troubles were logged."""

    def __init__(self) -> None:
        self.nodes: set[int] | None = None
        self._logged: dict[str, str] = {}

    def look(self, store: Store, control: Control) -> None:
        """Make Flower follow the run store, and note who is there; the trouble with a node is logged once."""
        try:
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
    settings, store, presence = home.settings(), Store(home.database()), Presence()
    control = Control(home)
    enrolment = Enrolment(store, home, control)
    waiting = LongPoll(open_pipe(pipe_of(home.running)), enrolment.number_of, time.monotonic)
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
        headers={SECRET_HEADER: home.secret()},
        routes=[*enrolment.routes(), waiting.route()],
    )

    def ends() -> list[CertificateEnd]:
        return certificate_ends(home.keys, store.enrolled_names())

    threading.Thread(target=announce_daily, args=(ends, threading.Event()), daemon=True).start()
    if settings.metrics_port:
        metrics_app = build_metrics_app(store, lambda: presence.nodes, ends)
        metrics = uvicorn.Server(
            uvicorn.Config(metrics_app, host=HOST, port=settings.metrics_port, log_config=None, ws="none")
        )
        threading.Thread(target=metrics.run, daemon=True).start()
    threading.Thread(target=_keep_synchronised, args=(store, home, presence), daemon=True).start()
    uvicorn.Server(tls_config(application, home.keys, host=settings.listen, port=settings.port)).run()


def tls_config(application: object, keys: Path, *, host: str, port: int) -> uvicorn.Config:
    """Return uvicorn's settings: TLS 1.2 or newer, and a client certificate of the federation's own authorities.

    A connection without a certificate is accepted, for enrolment; the application refuses it everything else.

    Raises:
        SettingsError: there are no certificates.
    """
    certificate, key = keys / f"{SERVER}.crt", keys / f"{SERVER}.key"
    if not (certificate.exists() and key.exists()):
        raise SettingsError(f"Expected certificates in {keys}, got none.", hint="Run: fedvault-server init")
    config = uvicorn.Config(
        application,  # type: ignore[arg-type]
        host=host,
        port=port,
        http=ClientCertificateProtocol,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    config.load()
    assert config.ssl is not None  # noqa: S101 - certificates were given
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    config.ssl.load_verify_locations(cadata=trusted_authorities(keys))
    return config


def _keep_synchronised(store: Store, home: Home, presence: Presence) -> None:
    # a client of its own: httpx clients are not for two threads at once
    control, pause = Control(home), threading.Event()
    while not pause.wait(SYNCHRONISE_EVERY_S):
        presence.look(store, control)
