"""A wheel by hash, from a package index on this machine."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from shared.errors import DataError
from simulations.datasets import package_index
from simulations.datasets.download import PINNED, read_member

WHEEL = "tool-1.0-py3-none-any.whl"
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w") as archive:
    archive.writestr("tool/table.csv", "a,b\n")
CONTENT = packed.getvalue()
PAGES = {
    "/simple/tool/": f'<a href="../../files/{WHEEL}?a=1&amp;b=2#sha256=0">{WHEEL}</a>'.encode(),
    f"/files/{WHEEL}?a=1&b=2": CONTENT,
}


class Index(BaseHTTPRequestHandler):
    """Serves one package with its page."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path in PAGES else 404)
        self.end_headers()
        self.wfile.write(PAGES.get(self.path, b""))

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server = HTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(package_index, "PINNED", tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_wheel_comes_from_the_index_that_pip_is_set_up_for(pins: Path) -> None:
    (pins / "tool.wheel").write_text(f"{WHEEL} --hash=sha256:{hashlib.sha256(CONTENT).hexdigest()}\n")
    with package_index.indexed_wheel("tool") as wheels:
        assert read_member(wheels, "tool", "tool/table.csv") == b"a,b\n"


@pytest.mark.parametrize(
    ("pin", "problem"),
    [
        (f"{WHEEL} --hash=sha256:{'0' * 64}", f"Expected {WHEEL} with SHA-256 0000"),
        (f"tool-2.0-py3-none-any.whl --hash=sha256:{'0' * 64}", "got a list without it"),
        (f"other-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}", "Expected other from its registry, got: .*404"),
        ("tool", "Expected a wheel and its hash"),
    ],
)
def test_anything_else_than_the_pinned_wheel_is_one_clear_error(pins: Path, pin: str, problem: str) -> None:
    (pins / "tool.wheel").write_text(pin)
    with pytest.raises(DataError, match=problem), package_index.indexed_wheel("tool"):
        pytest.fail("gave a wheel")


def test_every_wheel_is_pinned_by_hash() -> None:
    lines = [line for file in PINNED.glob("*.wheel") for line in file.read_text().splitlines()]
    assert lines and all(package_index.PIN.fullmatch(line) for line in lines)
