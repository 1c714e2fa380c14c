"""Resolve every extra of pyproject.toml alone, and say what it would silently install.

    python -m tests.support.extras

A requirement can resolve to a release of years ago, because another requirement excludes all newer ones. The installer
is content then, and nobody is told. Four rules:

1. Every requirement has a lower bound.
2. The project can be resolved alone, and with each extra alone.
3. Each requirement resolves to a release that is less than a year older than the newest one that the requirement itself
   allows, or to one of the family that its lower bound names: >=1.2 names 1.2.*.
4. No extra makes a requirement of the project itself resolve to an older release than without that extra.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import ROOT

LONGEST_LAG = timedelta(days=365)
UNREACHABLE = ("dns error", "error sending request", "failed to lookup address", "network was disabled", "timed out")
"""How uv's messages spell that the index cannot be reached."""


@dataclass(frozen=True)
class Release:
    """One version of a package."""

    version: Version
    day: datetime
    """When its first file was uploaded."""


Releases = Mapping[str, Release]
"""By normalised name."""
Resolve = Callable[[str], Releases]
"""Gives the releases for an extra; for "", those of the project without extras."""


def broken_rules(project: dict[str, Any], resolve: Resolve, newest: Releases) -> list[str]:
    """Check rules 1, 3 and 4; each finding is one line.

    Args:
        project: the table of pyproject.toml.
        resolve: raises if rule 2 is broken.
        newest: the newest release of each requirement if nothing else mattered.
    """
    core, extras = project["dependencies"], project["optional-dependencies"]
    alone = resolve("")
    findings = [*_unbounded(core), *_outdated(core, alone, newest)]
    for extra, requirements in extras.items():
        resolved = resolve(extra)
        lines = [
            *_unbounded(requirements),
            *_outdated(requirements, resolved, newest),
            *_held_back(core, alone, resolved),
        ]
        findings += [f"[{extra}] {line}" for line in lines]
    return findings


def read_lock(lock: dict[str, Any]) -> dict[str, Release]:
    """The releases that a pylock.toml names."""
    releases = {}
    for package in lock["packages"]:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        first = min(file["upload-time"] for file in files)
        releases[canonicalize_name(package["name"])] = Release(Version(package["version"]), first)
    return releases


def main() -> int:
    """Returns 0 if every rule holds; 0 as well if the index cannot be reached, except where CI=true."""
    path = ROOT / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    try:
        newest = _compile(path, "--no-deps", "--all-extras")
        findings = broken_rules(project, lambda extra: _compile(path, *(["--extra", extra] if extra else [])), newest)
    except ConnectionError as error:
        print(f"skipped the extras: the package index cannot be reached ({error})")
        return int(os.environ.get("CI") == "true")
    except subprocess.CalledProcessError as error:
        findings = [str(error.stderr).strip()]
    print("\n".join(findings) or f"each extra resolves alone: {', '.join(project['optional-dependencies'])}")
    return int(bool(findings))


def _unbounded(requirements: list[str]) -> list[str]:
    return [f"{line} has no lower bound" for line in requirements if not _lower_bound(Requirement(line))]


def _outdated(requirements: list[str], resolved: Releases, newest: Releases) -> list[str]:
    findings = []
    for line in requirements:
        name, bound = canonicalize_name(Requirement(line).name), _lower_bound(Requirement(line))
        here, there = resolved[name], newest[name]
        if there.day - here.day >= LONGEST_LAG and not (bound and _of_one_family(here.version, bound)):
            findings.append(
                f"{line} resolves to {here.version} of {here.day:%Y-%m-%d}, "
                f"although {there.version} of {there.day:%Y-%m-%d} exists"
            )
    return findings


def _held_back(requirements: list[str], alone: Releases, resolved: Releases) -> list[str]:
    names = [canonicalize_name(Requirement(line).name) for line in requirements]
    return [
        f"makes {name} resolve to {resolved[name].version}, and without it {alone[name].version} is installed"
        for name in names
        if resolved[name].version < alone[name].version
    ]


def _lower_bound(requirement: Requirement) -> Version | None:
    bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "~=", "==")]
    return max(bounds, default=None)


def _of_one_family(version: Version, bound: Version) -> bool:
    return (version.major, version.minor) == (bound.major, bound.minor)


def _compile(path: Path, *options: str) -> dict[str, Release]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--format", "pylock.toml"]
    done = subprocess.run(
        [*command, "--python", sys.executable, *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        raise ConnectionError(done.stderr.strip().splitlines()[-1].strip())
    done.check_returncode()
    return read_lock(tomllib.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
