"""A site's records as token ids: ragged, read-only, and quick to open in another process."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError


@dataclass(frozen=True)
class TokenizedDataset:
    """Records with their targets.

    A record that cannot be used has target -1. It stays in place: taking it out would make the place of others depend
    on it, and its loss is zero anyway.
    """

    ids: NDArray[np.int32]
    """All token ids, one record after the other."""
    offsets: NDArray[np.int64]
    """Record i is ids[offsets[i]:offsets[i + 1]]."""
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per record."""
        return np.diff(self.offsets)

    @property
    def unusable(self) -> int:
        """Records without a usable target. For the operator's eyes only."""
        return int((self.targets < 0).sum())

    @property
    def digest(self) -> str:
        """Names the token ids on this machine, for caches. It is data: never sent."""
        return hashlib.blake2b(self.ids.tobytes() + self.offsets.tobytes(), digest_size=16).hexdigest()

    def record(self, index: int) -> NDArray[np.int32]:
        """Token ids of one record."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, ids=self.ids, offsets=self.offsets, targets=self.targets)


def from_records(records: list[list[int]], targets: NDArray[np.int64]) -> TokenizedDataset:
    """Pack token lists."""
    if len(records) != len(targets):
        raise DataError(f"Expected one target per record, got {len(records)} records and {len(targets)} targets.")
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in records], dtype=np.int64)]).astype(np.int64)
    ids = np.fromiter((token for record in records for token in record), dtype=np.int32, count=int(offsets[-1]))
    return TokenizedDataset(ids, offsets, targets.astype(np.int64))


def load(path: Path) -> TokenizedDataset:
    """Read what `save` wrote."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return TokenizedDataset(arrays["ids"], arrays["offsets"], arrays["targets"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Expected prepared records at {path}, got an unreadable file.", hint=str(error)) from None
