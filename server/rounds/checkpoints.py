"""Checkpoints survive a crash: the global adapter and the history, written atomically after every round.

The vector is written first, then a JSON file that names its digest; each under a temporary name, flushed to disk and
renamed. A torn or damaged pair is skipped in favour of the round before.

A JSON file holds its own round's record. The first in a folder, and each that an earlier version wrote, holds all up to
its round; so the history is read back to the nearest of these, and no round costs more than the one before. The files
stay, as they are the history; of the vectors only the latest do.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from server.earlier_names import read_record
from shared.errors import DataError, SettingsError
from shared.files import write_atomically
from shared.protocol.messages import Vector, digest

KEPT_ROUNDS = 3
OF_METHOD = "method."
"""Before the names of what an aggregation method keeps, beside the adapter."""


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
    method_state: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """What the aggregation method keeps for the next round, by name."""


class AskedBefore(NamedTuple):
    """The progress of a round that was cut off: enough for a repeated ask, which costs nodes nothing."""

    nodes: list[int]
    missed: int
    """Deadlines that had passed; 0 in a file from before rounds were asked again."""


class Checkpoints:
    """The checkpoints of one study run in one folder.

    Args:
        folder: of the run.
        lasting: rounds whose adapters stay, since one of them may be handed out; of the others only the latest do.
    """

    def __init__(self, folder: Path, *, lasting: Collection[int] = ()) -> None:
        self.folder, self._lasting = folder, lasting

    def save(self, state: State) -> None:
        """Make a state durable before anything else happens.

        Guarantee: a crash at any moment leaves a state that loads, this one or the one before.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array, np.float64) for name, array in state.method_state.items()}
        vectors = {"adapter": state.adapter, **{OF_METHOD + name: array for name, array in arrays.items()}}
        write_atomically(self._vector(state.round), save(vectors))
        plain = {"study_sha256": state.study_sha256, "study_run": state.study_run, "round": state.round}
        plain |= {"adapter_sha256": digest(state.adapter), **self._history_of(state)}
        if arrays:
            plain["method_state_sha256"] = {name: _sha256(array) for name, array in arrays.items()}
        write_atomically(self._json(state.round), json.dumps(plain, allow_nan=False).encode())
        if (old := state.round - KEPT_ROUNDS) not in self._lasting:
            self._vector(old).unlink(missing_ok=True)

    def adapter(self, number: int) -> Vector:
        """Return the adapter after a round that was kept.

        Raises:
            DataError: it is not there, or not as it was written.
        """
        state = self._load(number)
        if state is None:
            raise DataError(
                f"Expected the adapter after round {number} in {self.folder}, got none, or a damaged one.",
                hint="Restore the folder from a backup. The run cannot hand out another adapter than it chose.",
            )
        return state.adapter

    def _history_of(self, state: State) -> dict[str, Any]:
        """Return what a state's file holds of the rounds so far: its own, where the files before it hold the others."""
        if not self._json(state.round - 1).exists():
            return {"records": state.records, "evaluations": state.evaluations}
        latest = state.records[-1] if state.records and state.records[-1]["round"] == state.round else None
        return {"record": latest, "evaluation": state.evaluations.get(str(state.round))}

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
            vectors, expected = load(self._vector(number).read_bytes()), plain.get("method_state_sha256", {})
            adapter = vectors["adapter"].astype(np.float32)
            arrays = {name: vectors[OF_METHOD + name] for name in expected}
            if digest(adapter) != plain["adapter_sha256"]:
                return None
            if {name: _sha256(array) for name, array in arrays.items()} != expected:
                return None
            records, evaluations = self._history(plain)
            return State(plain["study_sha256"], plain["study_run"], number, adapter, records, evaluations, arrays)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def _history(self, latest: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the records and evaluations up to the round of a file.

        Raises:
            KeyError: a file on the way is another run's, or not of its round.
            OSError: one is not there.
            ValueError: one is damaged.
        """
        own, plain = list[dict[str, Any]](), latest
        while "records" not in plain:
            own.append(plain)
            before, number = plain, plain["round"] - 1
            plain = json.loads(self._json(number).read_text())
            if (plain["study_run"], plain["round"]) != (before["study_run"], number):
                raise KeyError(number)
        own.reverse()
        records = [*plain["records"], *(file["record"] for file in own if file["record"] is not None)]
        evaluations = {str(file["round"]): file["evaluation"] for file in own if file["evaluation"] is not None}
        return [read_record(record) for record in records], plain["evaluations"] | evaluations

    def _json(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}.json"

    def _vector(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}.safetensors"


def _sha256(array: NDArray[np.float64]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
