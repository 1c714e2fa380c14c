"""Faults of too much: strangers who hold connections or ask all the time, and a member whose bodies do not come."""

import contextlib
import socket
import ssl
import time
from base64 import b64encode

from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from client.link.fleet import tls_context
from client.link.membership import Membership, membership
from simulations.e2e.federation import Impatience
from simulations.e2e.scene import Scene

ELSEWHERE = "127.0.0.2"
"""Where strangers come from: an address of this machine that no node has."""
IDLE, KNOCKS, PROMISES = 400, 300, 60
MOST_LOG_BYTES = 32 * 2**10
ANSWER_S = 5.0
GREETING = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def idle_strangers(scene: Scene) -> str:
    """Hold hundreds of connections without a certificate: the nodes go on, and the log stays small."""
    written = _log_bytes(scene)
    with contextlib.ExitStack() as held:
        opened = [_stranger(scene, held) for _ in range(IDLE)]
        record = scene.all_accepted()
        closed = _closed(opened)
    return f"{closed} of {IDLE} did not last, round {record['round']} goes on{_small_log(scene, written)}"


def knocking_strangers(scene: Scene) -> str:
    """Ask for what is not there, over and over: the nodes go on, and the log stays small."""
    written, refused = _log_bytes(scene), 0
    for _ in range(KNOCKS):
        with contextlib.ExitStack() as held:
            connection = _stranger(scene, held)
            if connection is None:
                continue
            with contextlib.suppress(OSError):
                connection.sendall(GREETING)
                refused += connection.recv(100).startswith(b"HTTP/1.1 404")
    return f"{refused} answers, round {scene.all_accepted()['round']} goes on{_small_log(scene, written)}"


def missing_bodies(scene: Scene) -> str:
    """Let a member promise bodies that do not come: the other nodes wait for none of them."""
    folder = scene.federation.config(scene.rogue).parent / "node" / "link"
    member = membership(folder)
    with contextlib.ExitStack() as held:
        for _ in range(PROMISES):
            with contextlib.suppress(OSError):
                _connected(scene, _context(member), held).sendall(_promise(member))
        started = time.monotonic()
        record = scene.all_accepted()
    return f"round {record['round']} after {time.monotonic() - started:.0f} s, beside {PROMISES} empty promises"


def _context(member: Membership) -> ssl.SSLContext:
    return tls_context(member.authority_path, member.certificate_path, member.key_path)


def _promise(member: Membership) -> bytes:
    key = b64encode(public_key_to_bytes(member.key().public_key())).decode()
    head = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nflwr-public-key: {key}\r\ncontent-length: 10\r\n\r\n"
    return head.encode()


def _connected(scene: Scene, context: ssl.SSLContext, held: contextlib.ExitStack) -> ssl.SSLSocket:
    plain = socket.create_connection(scene.federation.address, ANSWER_S, source_address=(ELSEWHERE, 0))
    return held.enter_context(context.wrap_socket(held.enter_context(plain), server_hostname="127.0.0.1"))


def _stranger(scene: Scene, held: contextlib.ExitStack) -> ssl.SSLSocket | None:
    """Open a connection without a certificate; None if it is not taken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        return _connected(scene, context, held)
    return None


def _closed(opened: list[ssl.SSLSocket | None]) -> int:
    return sum(connection is None or not _is_open(connection) for connection in opened)


def _is_open(connection: ssl.SSLSocket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False


def _log_bytes(scene: Scene) -> int:
    return (scene.federation.home / "logs" / "gateway.log").stat().st_size


def _small_log(scene: Scene, before: int) -> str:
    written = max(0, _log_bytes(scene) - before)
    if written > MOST_LOG_BYTES:
        raise Impatience(f"{written} bytes of log")
    return f", {written / 2**10:.0f} KiB of log"
