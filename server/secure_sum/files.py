"""Keep a run's roster on disk, and for each round of its secure sum the survivors with what opens their sum.

Beside them lie the masked vectors of the newest round, as they came, so that memory does not grow with the nodes. The
sums of evaluations have files of their own, by the number of rounds before them.

The survivors are on the disk before the first node is asked to sign them. So a server that was killed goes on with the
same set: nodes sign no other one. A file that cannot be read counts as none: the nodes send the same bytes again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.rounds.checkpoints import KEPT_ROUNDS
from server.rounds.round import RoundRecord
from shared.files import write_atomically
from shared.secure_sum.context import Purpose

HEAD_BYTES = 8
FIXED: Mapping[Purpose, str] = {"training": "round-", "evaluation": "evaluation-"}
VECTORS: Mapping[Purpose, str] = {"training": "vectors-", "evaluation": "counts-"}


@dataclass(frozen=True)
class Fixed:
    """A round whose survivors are fixed."""

    round: int
    adapter_sha256: str
    roster_sha256: str
    since: float
    """When they were fixed, in seconds since 1970: the clock must outlive the process."""
    record: RoundRecord | None = None
    """Of the round, as it stood then; an evaluation has none."""


class SumFiles:
    """The files of one run's secure sum in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def roster(self) -> Path:
        """Return the path of the run's roster."""
        return self.folder / "roster"

    def keep(self, fixed: Fixed, records: Mapping[str, bytes], purpose: Purpose = "training") -> None:
        """Make a round's survivors durable, with the records of its session; those of old rounds are forgotten."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = [[key, len(content)] for key, content in records.items()]
        record = None if fixed.record is None else fixed.record.as_dict()
        plain = vars(fixed) | {"record": record, "records": sizes}
        head = json.dumps(plain, allow_nan=False).encode()
        body = b"".join([len(head).to_bytes(HEAD_BYTES, "big"), head, *records.values()])
        write_atomically(self._path(fixed.round, purpose), hashlib.sha256(body).digest() + body)
        for path in self.folder.glob(f"{FIXED[purpose]}*"):
            number = path.name.removeprefix(FIXED[purpose])
            if number.isdigit() and int(number) <= fixed.round - KEPT_ROUNDS:
                path.unlink(missing_ok=True)

    def keep_vector(self, number: int, place: int, message: bytes, purpose: Purpose = "training") -> None:
        """Keep the masked vector of a node until the next round's come: it may be left out of the sum."""
        folder = self._vectors(number, purpose)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / str(place), message)
        for other in self.folder.glob(f"{VECTORS[purpose]}*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def vector(self, number: int, place: int, purpose: Purpose = "training") -> bytes | None:
        """Return the masked vector of a node in the newest round; None if there is none that can be read."""
        try:
            return (self._vectors(number, purpose) / str(place)).read_bytes()
        except OSError:
            return None

    def fixed(self, number: int, purpose: Purpose = "training") -> tuple[Fixed, dict[str, bytes]] | None:
        """Return a round whose survivors were fixed, with the records of its session; None if there is none."""
        try:
            stored = self._path(number, purpose).read_bytes()
            digest, body = stored[:32], stored[32:]
            if hashlib.sha256(body).digest() != digest:
                return None
            end = HEAD_BYTES + int.from_bytes(body[:HEAD_BYTES], "big")
            plain = json.loads(body[HEAD_BYTES:end])
            records = dict[str, bytes]()
            for key, size in plain.pop("records"):
                records[key], end = body[end : end + size], end + size
            record = None if plain["record"] is None else RoundRecord(**plain["record"])
            return Fixed(**plain | {"record": record}), records
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _vectors(self, number: int, purpose: Purpose) -> Path:
        return self.folder / f"{VECTORS[purpose]}{number:05d}"

    def _path(self, number: int, purpose: Purpose) -> Path:
        return self.folder / f"{FIXED[purpose]}{number:05d}"
