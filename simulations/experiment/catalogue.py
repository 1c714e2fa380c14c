"""The scenarios that ship, with what each shows, its evidence, and the commands that run it.

A scenario opens with comments: sentences about it, a line `Evidence: …`, and its commands.
"""

import tomllib
from pathlib import Path
from typing import NamedTuple

import simulations

SCENARIOS = Path(simulations.__path__[0], "scenarios")


class Entry(NamedTuple):
    """A scenario that ships."""

    file: str
    name: str
    task: str
    evidence: str
    """Which weights and data stand behind it, and how far they go. Begins with one of: real weights, real data; real
    data, random weights; plumbing only."""
    shows: str
    commands: tuple[str, ...]
    """What to type: first what it needs, then the scenario itself."""


def catalogue(folder: Path = SCENARIOS) -> list[Entry]:
    """Read every scenario, sorted by file."""
    return [_entry(path) for path in sorted(folder.glob("*.toml"))]


def _entry(path: Path) -> Entry:
    text = path.read_text()
    comments = [line.removeprefix("#").strip() for line in text.split("\n[", 1)[0].splitlines() if line.startswith("#")]
    commands = [line for line in comments if line.startswith("fedvault-sim ")]
    evidence = [line.removeprefix("Evidence:").strip() for line in comments if line.startswith("Evidence:")]
    shows = [line for line in comments if not line.startswith(("fedvault-sim ", "Evidence:"))]
    declared = tomllib.loads(text)
    return Entry(
        file=str(path),
        name=declared["study"]["name"],
        task=declared["task"]["kind"],
        evidence=" ".join(evidence),
        shows=" ".join(shows),
        commands=tuple(part.strip() for line in commands for part in line.split("&&")),
    )
