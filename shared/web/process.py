"""A page's process: it listens on loopback, prints its one-time address, and serves until it is told to stop."""

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from shared.errors import RunError
from shared.web.connections import MOST_CONNECTIONS, REQUEST_S, BriefConnection
from shared.web.guard import ENTER, Guard
from shared.web.rendering import STATIC, Pages
from shared.web.sessions import KEY_LIFE_S, Sessions

LOOPBACK, OWN_NAMESPACE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - see `listening`
LOOK_EVERY_S = 1.0


def listening(port: int = 0, *, container_publishes: bool = False) -> socket.socket:
    """Return a socket that listens on loopback.

    Guarantee: a page listens on loopback alone, unless it runs in a container whose engine publishes its port.

    Args:
        port: 0 takes one that is free.
        container_publishes: an engine reaches no container's loopback: there it is the engine that publishes the port
            on 127.0.0.1 alone.

    Raises:
        RunError: the port is taken.
    """
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((OWN_NAMESPACE if container_publishes else LOOPBACK, port))
    except OSError as error:
        opened.close()
        raise RunError(
            f"Expected port {port} to be free, got: {error.strerror}.", hint="Choose another --port."
        ) from None
    opened.listen(MOST_CONNECTIONS)
    return opened


def application(routes: Sequence[BaseRoute], pages: Pages, sessions: Sessions, *, port: int) -> Starlette:
    """Return a site behind its door.

    Args:
        routes: of the site; what they answer is seen by its session alone.
        pages: its templates.
        sessions: who may come in.
        port: under which it is reached.
    """
    hosts = [f"{name}:{port}" for name in (LOOPBACK, "localhost")]
    return behind(Middleware(Guard, pages=pages, sessions=sessions, hosts=hosts), routes)


def behind(door: Middleware, routes: Sequence[BaseRoute]) -> Starlette:
    """Return a site behind a door, with the files that all sites share."""
    app = Starlette(routes=[*routes, Mount("/static", StaticFiles(directory=STATIC))], middleware=[door])
    app.state.stopping = lambda: False
    return app


def address(port: int, key: str) -> str:
    """Return the address that opens a page once."""
    return f"http://{LOOPBACK}:{port}{ENTER}?key={key}"


def invitation(one_time_address: str, life_s: float = KEY_LIFE_S) -> str:
    """Return what a command prints when a page can be opened."""
    within = f"it opens once, within {life_s / 60:g} minutes"
    return f"Open this in a browser on this machine; {within}: {one_time_address}"


def expiry(life_s: float, *, terminal: bool) -> str:
    """Return what a command prints when nobody has opened the address that it printed."""
    what = "Press Enter" if terminal else "Start the page again"
    return f"Nobody opened the address within {life_s / 60:g} minutes; it opens nothing any more. {what} for a new one."


def server_of(app: Starlette, *, request_s: float = REQUEST_S) -> uvicorn.Server:
    """Return the server of a site: it logs no address, which may hold a key, and believes no word of a proxy."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        http=partial(BriefConnection, request_s=request_s),  # type: ignore[arg-type]
        h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    # what follows events would otherwise be cut off in the middle, with a traceback
    app.state.stopping = lambda: server.should_exit
    return server


def serve(
    routes: Sequence[BaseRoute],
    pages: Pages,
    *,
    say: Callable[[str], None],
    port: int = 0,
    container_publishes: bool = False,
    key_life_s: float = KEY_LIFE_S,
) -> None:
    """Serve a site until SIGTERM or SIGINT.

    Args:
        routes: of the site.
        pages: its templates.
        say: is given each sentence for the person who started the page: where it is, and when that is over.
        port: 0 takes one that is free.
        container_publishes: see `listening`.
        key_life_s: a one-time address that nobody opened for so long opens nothing.

    Raises:
        RunError: the port is taken.
    """
    terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    with listening(port, container_publishes=container_publishes) as opened:
        number = opened.getsockname()[1]
        sessions = Sessions(
            lambda key: say(invitation(address(number, key), key_life_s)),
            expired=lambda: say(expiry(key_life_s, terminal=terminal is not None)),
            key_life_s=key_life_s,
        )
        ended = threading.Event()
        threading.Thread(target=look_after, args=(sessions, terminal, ended.is_set), daemon=True).start()
        try:
            server_of(application(routes, pages, sessions, port=number)).run(sockets=[opened])
        finally:
            ended.set()


def look_after(sessions: Sessions, terminal: int | None, ended: Callable[[], bool]) -> None:
    """Say in time what has expired, and announce a new key when somebody presses Enter.

    Args:
        sessions: of a page.
        terminal: file descriptor where a person types; None if there is none.
        ended: whether the page has.
    """
    while not ended():
        # whoever reads from a terminal in the background is stopped
        typed = [terminal] if terminal is not None and os.tcgetpgrp(terminal) == os.getpgrp() else []
        ready, _, _ = select.select(typed, [], [], LOOK_EVERY_S)
        if terminal is not None and ready:
            if os.read(terminal, 4096):
                sessions.renew()
            else:
                terminal = None
        sessions.tidy()
