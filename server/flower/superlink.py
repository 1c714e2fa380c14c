"""Flower's SuperLink, served by us on loopback behind a secret.

Its Control and Runtime APIs have no authentication of their own. On loopback every user of the machine could use them;
so the whole application answers only requests that carry a secret which only the server's own processes can read. The
gateway adds it to what it forwards.
"""

import hmac
import logging
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import uvicorn
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from packaging.version import Version
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from server.identity import IDENTITY_PATH, proof
from server.settings import Home
from shared.environment import QUIET
from shared.files import private_folder, write_atomically

log = logging.getLogger(__name__)
SECRET_HEADER = "x-fedvault-secret"  # noqa: S105 - its name
HOST = "127.0.0.1"
PRESENT_PATH = "/fedvault/present"


class Guarded:
    """Lets only requests with a secret through to an application.

    Guarantee: nothing of the SuperLink answers a request without the secret, also not on loopback.

    What answers without it is this class: it shows a health check that it is of this server's folder.

    Args:
        app: Flower's.
        secret: of this server.
        heartbeat: tells Flower that a node is there, and returns whether Flower knows it. The gateway says so of many
            nodes in one request: each alone would go through Flower's whole stack.
    """

    def __init__(self, app: ASGIApp, secret: str, heartbeat: Callable[[int], bool] = lambda _node: False) -> None:
        self._app, self._secret, self._proof = app, secret.encode(), partial(proof, secret)
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 404."""
        if scope["type"] == "http" and scope["path"] == IDENTITY_PATH:
            await PlainTextResponse(self._proof(scope["query_string"].decode("latin-1")))(scope, receive, send)
            return
        if scope["type"] == "http":
            secrets = [value for name, value in scope["headers"] if name == SECRET_HEADER.encode()]
            if len(secrets) != 1 or not hmac.compare_digest(secrets[0], self._secret):
                await PlainTextResponse("not found\n", 404)(scope, receive, send)
                return
            if scope["path"] == PRESENT_PATH:
                nodes = [int(number) for number in (await Request(scope, receive).body()).split()]
                known = await run_in_threadpool(lambda: [node for node in nodes if self._heartbeat(node)])
                await PlainTextResponse("".join(f"{node}\n" for node in known))(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            return
        await self._app(scope, receive, send)


def remove_database(home: Home) -> None:
    """Delete Flower's database while no SuperLink runs.

    Nothing is lost: enrolled nodes are registered with Flower again, and runs resume from their own checkpoints.
    """
    for path in home.flower.glob("state.db*"):
        path.unlink()


def remove_newer_database(home: Home) -> None:
    """Delete Flower's database if a newer Flower wrote it, since an older one cannot start on it."""
    installed, record = version("flwr"), home.flower / "written-by"
    before = record.read_text() if record.exists() else installed
    if Version(before) > Version(installed):
        remove_database(home)
        log.warning("Flower's database was started afresh: Flower %s wrote it, and %s is installed.", before, installed)
    write_atomically(record, installed.encode())


def build_superlink(home: Home) -> ASGIApp:
    """Return Flower's application with node keys required, process isolation, and the guard around it."""
    private_folder(home.flower)
    remove_newer_database(home)
    port = home.settings().superlink_port
    config = SuperLinkLifespanConfig(
        control_address=f"{HOST}:{port}",
        health_server_address=None,
        host=HOST,
        port=port,
        insecure=True,  # on loopback; TLS ends at the gateway
        certificates=None,
        superexec_auth_secret=home.superexec_secret(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(home.flower / "state.db"),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    app = create_app(config, SuperLinkLifespan)
    states = app.state.linkstate_factory

    def heartbeat(node: int) -> bool:
        return bool(states.state().acknowledge_node_heartbeat(node, HEARTBEAT_DEFAULT_INTERVAL))

    return Guarded(app, home.secret(), heartbeat)


def serve(home: Home) -> None:
    """Serve the SuperLink until SIGTERM."""
    os.environ |= QUIET | {"FLWR_HOME": str(home.flower)}
    os.umask(0o077)
    uvicorn.run(
        build_superlink(home),
        host=HOST,
        port=home.settings().superlink_port,
        workers=1,
        access_log=False,
        log_config=None,
        ws="none",
    )
