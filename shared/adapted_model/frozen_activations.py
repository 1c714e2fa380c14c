"""The frozen part of the model, computed once per record and kept.

Below the lowest trained layer nothing changes during a study, so its activations can be stored. They are computed in
canonical batches: a number of rows that depends on the length alone, lengths rounded up to a multiple of 8, one row
always a dummy. Matrix kernels depend on shapes, so with fixed shapes a record's activations are the same bits whoever
shares its batch, and whether they come from the cache or are computed anew. What is stored in half precision is rounded
to it where it is computed anew, too.

Guarantee: a record's activations depend on that record alone, to the last bit; the cache changes no update.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.adapted_model.activation_file import ActivationFile
from shared.adapted_model.model import AdaptedModel
from shared.records.batches import LENGTH_STEP, Batch, Fills, collate, mask_of, pad, padded_length, shapes
from shared.records.ragged import Records
from shared.study.sections import Performance

MOST_ROWS, CANONICAL_TOKENS = 16, 8192
RESTING_BYTES = 16 * 2**20
"""After so large a file is made, frozen layers rest; simulated sites make many small ones, each by the same layers."""
Storage = Literal["float32", "float16"]
SUFFIXES: dict[str, str] = {"float32": "f32", "float16": "f16"}


class FrozenActivations:
    """Gives the batches that training starts from, computing frozen activations each time."""

    def __init__(
        self, model: AdaptedModel, records: Records, device: torch.device, *, storage: Storage = "float32"
    ) -> None:
        self.model, self.records, self.device, self.storage = model, records, device, storage

    def sizes(self, step: int = LENGTH_STEP) -> NDArray[np.int64]:
        """Padded lengths of every record, by which physical batches are cut."""
        return shapes(self.records, self.model.kind.fills, step=step)

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Activations of the records, each (tokens, width), of a model that is cut; where they were made or kept."""
        found: dict[int, Tensor] = {}
        for batch in canonical_batches(self.model, self.records, indices):
            computed = canonical_states(self.model, self.records, batch, self.device)
            found |= zip(batch, (rounded(states, self.storage) for states in computed), strict=True)
        return [found[i] for i in indices]

    def batch(self, indices: Sequence[int], *, step: int = LENGTH_STEP) -> Batch:
        """What the trained part of the model takes for a physical batch."""
        model = self.model
        if not model.has_frozen_layers:
            return collate(self.records, indices, model.kind.fills, self.device, step=step)
        above: Fills = {name: fill for name, fill in model.kind.fills.items() if name not in model.frozen_fields}
        batch = collate(self.records, indices, above, self.device, step=step)
        states = self.states(indices)
        if model.head_only:
            return batch | {"states": torch.stack(states).to(self.device)}
        lengths = [len(rows) for rows in states]
        if "ids" not in model.frozen_fields:  # images and recordings have one length and no mask
            return batch | {"states": torch.stack(states).to(self.device)}
        length = padded_length(max(lengths), step)
        # padded first, then moved: a GPU is sent one tensor, not one per record
        return batch | {
            "states": pad(states, length).to(self.device),
            "mask": mask_of(lengths, length).to(self.device),
        }


class CachedActivations(FrozenActivations):
    """The same activations, bit for bit, from a file that only its owner reads."""

    def __init__(
        self, model: AdaptedModel, records: Records, device: torch.device, path: Path, *, storage: Storage = "float32"
    ) -> None:
        super().__init__(model, records, device, storage=storage)
        self._rows = row_offsets(model, records)
        if not path.exists():
            _build(self, path)
        self._stored = ActivationFile(path, width=model.width, dtype=storage)

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Activations of the records, read back."""
        kept = [self._stored.read(self._rows[i], self._rows[i + 1]) for i in indices]
        return [torch.from_numpy(rows).float() for rows in kept]


def open_activations(
    model: AdaptedModel,
    records: Records,
    device: torch.device,
    *,
    folder: Path | None,
    limit_bytes: int,
    storage: Storage = "float32",
) -> FrozenActivations:
    """Open the cache for this model and dataset, or compute each time if there is nothing to keep or no room for it."""
    if folder is None or not model.has_frozen_layers or not len(records):
        return FrozenActivations(model, records, device, storage=storage)
    size_bytes = int(row_offsets(model, records)[-1]) * model.width * np.dtype(storage).itemsize
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = _cache_path(folder, model, records, model.frozen_id, storage)
    if not path.exists() and size_bytes > min(limit_bytes, shutil.disk_usage(folder).free // 2):
        return FrozenActivations(model, records, device, storage=storage)
    return CachedActivations(model, records, device, path, storage=storage)


def activations_for(
    model: AdaptedModel, records: Records, device: torch.device, performance: Performance, folder: Path | None
) -> FrozenActivations:
    """Open what a study's performance settings allow; no folder, no cache."""
    return open_activations(
        model,
        records,
        device,
        folder=folder if performance.activation_cache else None,
        limit_bytes=performance.activation_cache_limit_bytes,
        storage=performance.activation_storage,
    )


def rounded(states: Tensor, storage: Storage) -> Tensor:
    """States as the storage gives them back: half precision is cut off at its largest finite number."""
    if storage == "float32":
        return states
    most = torch.finfo(torch.float16).max
    return states.clamp(-most, most).half().float()


def row_offsets(model: AdaptedModel, records: Records, *, pooled: bool | None = None) -> NDArray[np.int64]:
    """Where each record's rows begin in the cache: one row per token, or one per record if only the head is trained."""
    return np.concatenate([[0], np.cumsum(model.state_rows(records, pooled=pooled))])


def canonical_batches(model: AdaptedModel, records: Records, indices: Sequence[int]) -> Iterator[list[int]]:
    """Group records by padded length, at most one fewer than the canonical rows in a group."""
    sizes = shapes(records, _below(model))[:, 0]
    by_length: dict[int, list[int]] = {}
    for index in dict.fromkeys(indices):
        by_length.setdefault(int(sizes[index]), []).append(index)
    for length, group in by_length.items():
        at_once = canonical_rows(length + model.kind.fixed_tokens) - 1
        for start in range(0, len(group), at_once):
            yield group[start : start + at_once]


def canonical_rows(length: int) -> int:
    """Rows of a canonical batch of records of this padded length: fewer of long ones, for memory's sake."""
    return max(2, min(MOST_ROWS, CANONICAL_TOKENS // length))


def canonical_states(
    model: AdaptedModel, records: Records, indices: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Run the frozen part on one canonical batch."""
    batch = collate(records, indices, _below(model), device)
    length = batch["mask"].shape[1] if "mask" in batch else 1
    states = model.frozen_states(_canonical(batch, canonical_rows(length + model.kind.fixed_tokens)))
    kept = model.state_rows(records)[list(indices)].tolist()
    return [states[row, : kept[row]].clone() for row in range(len(indices))]


def _canonical(batch: Batch, rows: int) -> Batch:
    """Add dummies up to the canonical rows; the last row is always one, so a mask is always needed if there is one."""
    full: Batch = {}
    for name, tensor in batch.items():
        full[name] = tensor.new_zeros(rows, *tensor.shape[1:])
        full[name][: len(tensor)] = tensor
    if "mask" in batch:
        full["mask"][len(batch["mask"]) :, 0] = 1
    return full


def _below(model: AdaptedModel) -> Fills:
    return {name: model.kind.fills[name] for name in model.frozen_fields}


def _build(activations: CachedActivations, path: Path) -> None:
    # written beside its final name: a crash leaves no half-filled cache behind
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    model, records = activations.model, activations.records
    stored = ActivationFile(unfinished, width=model.width, dtype=activations.storage, new=True)
    rows, below = row_offsets(model, records), _shallower_cache(activations, path.parent)
    try:
        for indices in canonical_batches(model, records, range(len(records))):
            if below is None:
                found = canonical_states(model, records, indices, activations.device)
            else:
                found = _pooled_from(activations, *below, indices)
            for index, states in zip(indices, found, strict=True):
                stored.write(rows[index], rounded(states, activations.storage).cpu().numpy())
        stored.flush()
        size_bytes = unfinished.stat().st_size
        unfinished.replace(path)
        if size_bytes >= RESTING_BYTES:
            model.rest_frozen_layers()
    finally:
        unfinished.unlink(missing_ok=True)  # what a full disk or an interruption leaves is made of private records


def _cache_path(folder: Path, model: AdaptedModel, records: Records, frozen_id: str, storage: Storage) -> Path:
    return folder / f"{records.digest(model.frozen_fields)}-{frozen_id}.{SUFFIXES[storage]}"


def _shallower_cache(activations: CachedActivations, folder: Path) -> tuple[int, ActivationFile] | None:
    """Activations of a lower cut of the same model and dataset, from which pooled features are soon computed."""
    model, records = activations.model, activations.records
    if not model.head_only or activations.storage != "float32":  # rounded twice would not be what is computed anew
        return None
    for cut in range(int(model.cut or 0) - 1, 0, -1):
        path = _cache_path(folder, model, records, model.frozen_id_at(cut), activations.storage)
        if path.exists():
            return cut, ActivationFile(path, width=model.width, dtype=activations.storage)
    return None


def _pooled_from(
    activations: CachedActivations, cut: int, stored: ActivationFile, indices: Sequence[int]
) -> list[Tensor]:
    model, records = activations.model, activations.records
    offsets = row_offsets(model, records, pooled=False)
    states = [torch.from_numpy(stored.read(offsets[i], offsets[i + 1])) for i in indices]
    lengths = [len(rows) for rows in states]
    length = padded_length(max(lengths)) if "ids" in model.frozen_fields else max(lengths)
    batch = {"states": pad(states, length), "mask": mask_of(lengths, length)}
    rows = canonical_rows(length if "ids" in model.frozen_fields else 1 + model.kind.fixed_tokens)
    pooled = model.pooled_from(cut, _canonical({name: t.to(activations.device) for name, t in batch.items()}, rows))
    return [pooled[row : row + 1].clone() for row in range(len(indices))]
