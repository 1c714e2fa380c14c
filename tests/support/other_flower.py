"""Run a command under a second version of Flower, laid over the installed one.

    python -m tests.support.other_flower 1.41 .venv/bin/python -m pytest tests/server/flower

What the second version needs differently is installed into a folder beside the environment. The folder comes first on
PYTHONPATH, so that processes which the command starts import it as well.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

OVERLAY = "FEDVAULT_FLOWER_OVERLAY"
"""Environment variable: the folder with the other Flower, for the tests that compare both."""
PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--progress-bar", "off")
LOOK = "import flwr; from importlib.metadata import version; print(version('flwr'), flwr.__file__)"


def main(wanted: str, *command: str) -> int:
    """Returns the command's exit code."""
    installed = version("flwr")
    if _is(installed, wanted):
        sys.exit(f"error: Expected a version of Flower other than the installed {installed}, got FLOWER={wanted}.")
    folder = Path(sys.prefix) / "other-flower" / f"{wanted}-over-{installed}"
    if not (folder / ".complete").exists():
        try:
            _install(wanted, folder)
        except subprocess.CalledProcessError:
            sys.exit(f"error: Expected Flower {wanted} from the package index, got pip's error above.")
    environment = os.environ | {"PYTHONPATH": _first_of_path(folder), OVERLAY: str(folder)}
    tested = _checked(wanted, folder, environment)
    print(f"Testing with Flower {tested} laid over the installed {installed}", flush=True)
    return subprocess.run(command, env=environment, check=False).returncode


def _install(wanted: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    plan = subprocess.run(
        [*PIP, "--dry-run", "--report", "-", f"flwr=={wanted}.*"], stdout=subprocess.PIPE, text=True, check=True
    )
    differing = [package["metadata"] for package in json.loads(plan.stdout)["install"]]
    exact = [f"{package['name']}=={package['version']}" for package in differing]
    print(f"installing {' '.join(exact)} into {folder}", flush=True)
    subprocess.run([*PIP, "--no-deps", "--target", str(folder), *exact], check=True)
    (folder / ".complete").touch()


def _first_of_path(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def _checked(wanted: str, folder: Path, environment: dict[str, str]) -> str:
    """The version that processes with this environment import."""
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    tested, place = looked.stdout.split(maxsplit=1)
    if not _is(tested, wanted) or not Path(place.strip()).is_relative_to(folder):
        sys.exit(f"error: Expected Flower {wanted} from {folder}, got {tested} from {place.strip()}.")
    return tested


def _is(full: str, wanted: str) -> bool:
    return full == wanted or full.startswith(f"{wanted}.")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
