"""Health asks who answers: this server's own processes, another program, or nobody."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import uvicorn

from server.certificate_authority import create, issue_server, trusted_authorities
from server.flower.superlink import Guarded
from server.gateway.process import tls_config
from server.health import Answer, gateway_answer, superlink_answer
from server.identity import challenge, is_proof, proof
from server.ports import require_free_ports
from server.settings import Home
from shared.errors import SettingsError
from simulations.e2e.federation import free_port


@contextlib.contextmanager
def serving(config: uvicorn.Config) -> Iterator[int]:
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield config.port
    server.should_exit = True
    thread.join()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("ours", "theirs"):
        create(tmp_path / name, name)
        issue_server(tmp_path / name, ["127.0.0.1"])
    return tmp_path / "ours"


async def app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nothing is asked of it")


def gateway(keys: Path) -> uvicorn.Config:
    config = tls_config(app, keys, host="127.0.0.1", port=free_port())
    config.lifespan = "off"
    return config


@pytest.mark.guarantee("another program at a port of this server is never taken for it.")
def test_another_federations_gateway_on_the_port_is_not_ours(keys: Path) -> None:
    ours = trusted_authorities(keys)
    with serving(gateway(keys)) as port:
        assert gateway_answer(("127.0.0.1", port), ours) is Answer.OURS
    assert gateway_answer(("127.0.0.1", port), ours) is Answer.NOBODY
    with serving(gateway(keys.with_name("theirs"))) as port:
        assert gateway_answer(("127.0.0.1", port), ours) is Answer.ANOTHER


@pytest.mark.guarantee("another program at a port of this server is never taken for it.")
def test_another_folders_superlink_on_the_port_is_not_ours_and_hears_no_secret() -> None:
    config = uvicorn.Config(
        Guarded(app, "secret"),  # type: ignore[arg-type]
        port=free_port(),
        log_config=None,
        lifespan="off",
        ws="none",
    )
    with serving(config) as port:
        assert superlink_answer(port, "secret") is Answer.OURS
        assert superlink_answer(port, "another") is Answer.ANOTHER
    assert superlink_answer(port, "secret") is Answer.NOBODY


@pytest.mark.guarantee("another program at a port of this server is never taken for it.")
def test_a_web_server_that_says_yes_to_everything_is_neither() -> None:
    class Yes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Yes) as server:
        threading.Thread(target=server.serve_forever).start()
        port = server.server_address[1]
        assert superlink_answer(port, "secret") is Answer.ANOTHER
        assert gateway_answer(("127.0.0.1", port), "") is Answer.ANOTHER
        server.shutdown()


def test_who_accepts_and_says_nothing_does_not_answer() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as frozen:
        port = frozen.getsockname()[1]
        assert superlink_answer(port, "secret", within_s=0.1) is Answer.NOBODY
        assert gateway_answer(("127.0.0.1", port), "", within_s=0.1) is Answer.NOBODY


def test_a_proof_answers_one_question_for_one_secret() -> None:
    asked = challenge()
    assert is_proof("secret", asked, proof("secret", asked).encode())
    assert not is_proof("another", asked, proof("secret", asked).encode())
    assert not is_proof("secret", challenge(), proof("secret", asked).encode())


@pytest.mark.parametrize("key", ["port", "superlink_port", "metrics_port"])
def test_a_port_in_use_is_named_by_its_key_before_anything_starts(tmp_path: Path, key: str) -> None:
    home = Home(tmp_path)
    create(home.keys, "ours")
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        ports = {"port": free_port(), "superlink_port": free_port(), "metrics_port": free_port()}
        lines = [f"{name} = {number}" for name, number in (ports | {key: other.getsockname()[1]}).items()]
        home.config.write_text('hosts = ["127.0.0.1"]\nlisten = "127.0.0.1"\n' + "\n".join(lines))
        other.listen(0)  # whoever connects is never accepted
        with pytest.raises(SettingsError, match=f"got {key}=") as raised:
            require_free_ports(home)
    assert f"change {key} in server.toml" in raised.value.hint
    require_free_ports(home)


def test_two_keys_with_one_port_and_an_address_of_elsewhere_are_refused(tmp_path: Path) -> None:
    home, port = Home(tmp_path), free_port()
    create(home.keys, "ours")
    common = f'hosts = ["a"]\nsuperlink_port = {port}\nmetrics_port = 0\n'
    home.config.write_text(f'{common}port = {port}\nlisten = "127.0.0.1"\n')
    with pytest.raises(SettingsError, match=f"got superlink_port={port}"):
        require_free_ports(home)
    home.config.write_text(f'{common}port = {free_port()}\nlisten = "192.0.2.1"\n')
    with pytest.raises(SettingsError, match=r"got listen='192\.0\.2\.1'"):
        require_free_ports(home)


def test_metrics_listen_where_the_settings_say_and_an_address_of_elsewhere_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    create(home.keys, "ours")
    ports = "\n".join(f"{key} = {free_port()}" for key in ("port", "superlink_port", "metrics_port"))
    common = f'hosts = ["a"]\nlisten = "127.0.0.1"\n{ports}\n'
    home.config.write_text(f'{common}metrics_listen = "192.0.2.1"\n')
    with pytest.raises(SettingsError, match=r"got metrics_listen='192\.0\.2\.1'") as raised:
        require_free_ports(home)
    assert "Change metrics_listen in server.toml" in raised.value.hint
    home.config.write_text(f'{common}metrics_listen = "127.0.0.2"\n')
    taken = closing(socket.create_server(("127.0.0.2", home.settings().metrics_port)))
    with taken, pytest.raises(SettingsError, match="got metrics_port="):
        require_free_ports(home, patience_s=0.0)
