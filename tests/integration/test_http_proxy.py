"""Out through a proxy, with the certificate authority that it needs."""

import json
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from client.link.fleet import Fleet, NotAccepted, through
from client.link.membership import join, membership
from client.settings import Server
from server.certificate_authority import create, issue_server
from shared.errors import RunError
from shared.protocol.invite import read_invite
from simulations.e2e.federation import Federation

POLICY = f'epsilon = 1.0\ndelta = 1e-6\ndeclared_size = 10\nmodels = ["{"0" * 64}"]\n'
Wrap = Callable[[socket.socket], socket.socket]


class Proxy:
    """A CONNECT proxy on loopback that remembers where it was asked to go.

    Args:
        wrap: TLS that clients speak to the proxy itself.
        inspect: opens what is inside, as an inspecting proxy does: TLS to the client, and TLS to the other side.
    """

    def __init__(self, wrap: Wrap | None = None, inspect: tuple[Wrap, Wrap] | None = None) -> None:
        self.asked: list[str] = []
        self._wrap, self._inspect = wrap, inspect
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with ExitStack() as open_ones:
            try:
                client = open_ones.enter_context(self._wrap(client) if self._wrap else client)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += client.recv(65536)
                host, _, port = asked.split()[1].decode().partition(":")
                self.asked.append(f"{host}:{port}")
                there = open_ones.enter_context(socket.create_connection((host, int(port)), timeout=10))
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                if self._inspect:
                    client, there = self._inspect[0](client), self._inspect[1](there)
                    open_ones.enter_context(client)
                    open_ones.enter_context(there)
                _relay(client, there)
            except OSError:
                return  # who went away is not waited for


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass on until either side ends; in one thread, since a TLS socket must not be read and written at once."""
    towards = {one: other, other: one}
    while True:
        held = [side for side in towards if isinstance(side, ssl.SSLSocket) and side.pending()]
        for source in held or select.select(list(towards), [], [], 30)[0] or [None]:
            if source is None:
                return
            source.settimeout(0)
            try:
                content = source.recv(65536)
            except (ssl.SSLWantReadError, BlockingIOError):
                continue  # a part of a record, or a session ticket
            finally:
                source.settimeout(10)
            if not content:
                return
            towards[source].sendall(content)


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    try:
        yield proxy
    finally:
        proxy.close()


def serving(folder: Path) -> Wrap:
    """TLS with a certificate of another authority, in `folder`."""
    create(folder, "the company's own")
    issued = issue_server(folder, ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return lambda plain: context.wrap_socket(plain, server_side=True)


def trusting(authority: str) -> Wrap:
    """TLS to a server of that authority."""
    context = ssl.create_default_context(cadata=authority)
    return lambda plain: context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_every_connection_of_the_link_goes_through_the_proxy() -> None:
    with running(Proxy()) as proxy:
        proxied = through(f"http://127.0.0.1:{proxy.port}", None)
        key, context = ec.generate_private_key(ec.SECP384R1()), ssl.create_default_context()
        fleet = Fleet("gate.invalid:8443", key, context, proxy=proxied)
        with pytest.raises(httpx.TransportError):
            fleet.activate(0)
        fleet.close(deactivate=False)
    assert set(proxy.asked) == {"gate.invalid:8443"}, "a name that only the proxy could have looked up"


@pytest.mark.integration
def test_join_and_doctor_work_through_a_proxy(federation: Federation) -> None:
    federation.make_node("behind", "text,label\n", POLICY)
    with running(Proxy()) as proxy:
        config = federation.config("behind")
        config.write_text(config.read_text() + f'[server]\nproxy = "http://127.0.0.1:{proxy.port}"\n')
        federation.enrol("behind")
        joined = len(proxy.asked)
        listed, _end = json.JSONDecoder().raw_decode(federation.node("behind", "doctor", "--json", check=False))
        found = {finding["check"]: finding["ok"] for finding in listed}
    host, port = federation.address
    assert joined == 1 and len(proxy.asked) >= 3, "the server and the key are both tried through it"
    assert set(proxy.asked) == {f"{host}:{port}"}
    assert found["server"] and found["clock"] and found["key"]


@pytest.mark.integration
def test_a_proxy_behind_tls_needs_its_authority(federation: Federation, tmp_path: Path) -> None:
    federation.server("invite", "tlsproxied", "--out", str(tmp_path / "invite.json"))
    invite = read_invite(tmp_path / "invite.json")
    with running(Proxy(wrap=serving(tmp_path / "company"))) as proxy:
        settings = Server(proxy=f"https://127.0.0.1:{proxy.port}")
        with pytest.raises(RunError, match="to answer"):
            join(invite, tmp_path / "link", settings, tmp_path)
        trusted = settings.model_copy(update={"extra_ca": "company/authority.crt"})
        join(invite, tmp_path / "link", trusted, tmp_path)
        fleet = membership(tmp_path / "link").connect(trusted, tmp_path)
        fleet.activate(0)
        fleet.close(deactivate=True)


@pytest.mark.integration
def test_a_proxy_that_inspects_tls_lets_a_node_with_its_authority_join_and_no_more(
    federation: Federation, tmp_path: Path
) -> None:
    federation.server("invite", "inspected", "--out", str(tmp_path / "invite.json"))
    invite = read_invite(tmp_path / "invite.json")
    with running(Proxy(inspect=(serving(tmp_path / "company"), trusting(invite.authority)))) as proxy:
        settings = Server(proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(RunError, match="certificate"):
            join(invite, tmp_path / "link", settings, tmp_path)
        trusted = settings.model_copy(update={"extra_ca": "company/authority.crt"})
        member = join(invite, tmp_path / "link", trusted, tmp_path)
        fleet = member.connect(trusted, tmp_path)
        with pytest.raises(NotAccepted, match="401"):
            fleet.activate(0)
        fleet.close(deactivate=False)
