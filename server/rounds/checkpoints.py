"""Checkpoints survive a crash: the global adapter and the history, written atomically after every round.

The vector is written first, then a JSON file that names its digest; each under a temporary name, flushed to disk and
renamed. A torn or damaged pair is skipped in favour of the round before.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from server.earlier_names import read_record
from shared.errors import DataError, SettingsError
from shared.files import write_atomically
from shared.protocol.messages import Vector, digest

KEPT_ROUNDS = 3


@dataclass(frozen=True)
class State:
    """Everything needed to continue after `round`."""

    study_sha256: str
    study_run: str
    round: int
    adapter: Vector
    records: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, Any] = field(default_factory=dict)
    """Evaluation by round number, as text."""


class AskedBefore(NamedTuple):
    """The progress of a round that was cut off: enough for a repeated ask, which costs nodes nothing."""

    nodes: list[int]
    missed: int
    """Deadlines that had passed; 0 in a file from before rounds were asked again."""


class Checkpoints:
    """The checkpoints of one study run in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: State) -> None:
        """Make a state durable before anything else happens.

        Guarantee: a crash at any moment leaves a state that loads, this one or the one before.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._vector(state.round), save({"adapter": state.adapter}))
        plain = {name: value for name, value in vars(state).items() if name != "adapter"}  # asdict copies adapters
        plain["adapter_sha256"] = digest(state.adapter)
        write_atomically(self._json(state.round), json.dumps(plain, allow_nan=False).encode())
        for number in sorted(self._rounds())[:-KEPT_ROUNDS]:
            self._json(number).unlink(missing_ok=True)
            self._vector(number).unlink(missing_ok=True)

    def keep_asked(self, number: int, nodes: Iterable[int], *, missed: int = 0) -> None:
        """Make durable whom a round is about to ask, and how many deadlines it missed; older rounds are forgotten."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = {"round": number, "nodes": sorted(nodes), "missed": missed}
        write_atomically(self.folder / "asked.json", json.dumps(plain).encode())

    def asked(self, number: int) -> AskedBefore:
        """Return whom a round had asked before the run was cut off; nobody if it had not begun, or cannot be read."""
        try:
            plain = json.loads((self.folder / "asked.json").read_text())
            if plain["round"] == number:
                return AskedBefore([int(node) for node in plain["nodes"]], int(plain.get("missed", 0)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return AskedBefore([], 0)

    def latest(self, *, study_sha256: str, study_run: str) -> State | None:
        """Return the newest complete state; None in an empty folder.

        Raises:
            SettingsError: the folder belongs to another study or run.
            DataError: nothing in it is complete.
        """
        numbers = sorted(self._rounds(), reverse=True)
        for number in numbers:
            state = self._load(number)
            if state is None:
                continue
            if (state.study_sha256, state.study_run) != (study_sha256, study_run):
                raise SettingsError(
                    f"Expected study {study_sha256[:12]} in {self.folder}, got one of {state.study_sha256[:12]}.",
                    hint="The study was changed. Choose another folder, or restore the study as it was.",
                )
            return state
        if numbers:
            raise DataError(
                f"Expected a complete checkpoint in {self.folder}, got only damaged ones.",
                hint="Restore the folder from a backup, or queue the study again.",
            )
        return None

    def _rounds(self) -> Iterator[int]:
        for path in self.folder.glob("round-*.json"):
            if path.stem.removeprefix("round-").isdigit():
                yield int(path.stem.removeprefix("round-"))

    def _load(self, number: int) -> State | None:
        try:
            plain = json.loads(self._json(number).read_text())
            adapter = load(self._vector(number).read_bytes())["adapter"].astype(np.float32)
            if digest(adapter) != plain.pop("adapter_sha256"):
                return None
            plain["records"] = [read_record(record) for record in plain["records"]]
            return State(adapter=adapter, **plain)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def _json(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}.json"

    def _vector(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}.safetensors"
