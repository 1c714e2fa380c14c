"""Compute the activations of the model's frozen layers, once per record, and cache them.

Nothing below the lowest trained layer changes during a study, so its activations can be stored. They are computed in
canonical batches: the number of rows depends on the length alone, lengths are rounded up to a multiple of 8, and one
row is always a dummy. Matrix kernels depend on shapes; with fixed shapes a record's activations are the same bits
whichever records share its batch, from the cache or computed anew. Half precision rounds both.

Guarantee: a record's activations depend on that record alone, to the last bit; the cache changes no update.
"""

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.adapted_model.activation_file import ActivationFile
from shared.adapted_model.model import AdaptedModel
from shared.errors import may_be_a_records_own
from shared.records.batches import (
    LENGTH_STEP,
    Batch,
    Fills,
    Shapes,
    canonical_shapes,
    collate,
    mask_of,
    pad,
    padded_length,
    shapes,
)
from shared.records.ragged import Records
from shared.study.sections import Performance

log = logging.getLogger(__name__)
MOST_ROWS, CANONICAL_TOKENS = 16, 8192
RESTING_BYTES = 16 * 2**20
"""Size of a new file after which frozen layers give back their memory; simulated sites make many smaller files."""
Storage = Literal["float32", "float16"]
SUFFIXES: dict[str, str] = {"float32": "f32", "float16": "f16"}


class FrozenActivations:
    """Makes the batches that training reads, and computes frozen activations each time."""

    recomputes = True
    """Whether `look_ahead` saves anything."""

    def __init__(
        self, model: AdaptedModel, records: Records, device: torch.device, *, storage: Storage = "float32"
    ) -> None:
        self.model, self.records, self.device, self.storage = model, records, device, storage
        self._ahead: dict[int, Tensor] = {}

    def sizes(self, step: int = LENGTH_STEP) -> NDArray[np.int64]:
        """Return the padded lengths of every record, by which physical batches are formed."""
        return shapes(self.records, self.model.kind.fills, step=step)

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Return the frozen activations of some records, each (tokens, width), on the device that computed them."""
        by_record = {index: self._ahead[index] for index in indices if index in self._ahead}
        missing = [index for index in indices if index not in by_record]
        for batch in canonical_batches(self.model, self.records, missing):
            computed = states_or_nan(self.model, self.records, batch, self.device)
            by_record |= zip(batch, (rounded(states, self.storage) for states in computed), strict=True)
        return [by_record[i] for i in indices]

    def look_ahead(self, indices: Sequence[int]) -> None:
        """Compute some records' states in full canonical batches, before physical ones take a few of them each."""
        self._ahead = {}
        if self.model.has_frozen_layers:
            self._ahead = dict(zip(indices, self.states(indices), strict=True))

    def canonical_shapes(self, step: int = LENGTH_STEP) -> Shapes:
        """Return the shape in which the trained part of the model reads each record, by its own lengths alone."""
        return canonical_shapes(self.records, self._read_above, step=step)

    @property
    def varying(self) -> bool:
        """True if records differ in the lengths that the trained part of the model reads."""
        return any(fill is not None for fill in self._read_above.values())

    @property
    def _read_above(self) -> Fills:
        """Padded fields of a batch; pooled features have one length whatever they were computed from."""
        fills, frozen = self.model.kind.fills, self.model.frozen_fields
        return {name: fill for name, fill in fills.items() if not (self.model.head_only and name in frozen)}

    def batch(self, indices: Sequence[int], *, step: int = LENGTH_STEP) -> Batch:
        """Make the physical batch that the trained part of the model reads."""
        model = self.model
        if not model.has_frozen_layers:
            return collate(self.records, indices, model.kind.fills, self.device, step=step)
        frozen = model.frozen_fields
        above: Fills = {name: fill for name, fill in model.kind.fills.items() if name not in frozen}
        states = self.states(indices)
        lengths = [len(rows) for rows in states]
        batch = collate(self.records, indices, above, self.device, step=step)
        if model.head_only:
            return batch | {"states": torch.stack(states).to(self.device)}
        if "ids" not in frozen:  # images and recordings have one length and no mask
            return batch | {"states": torch.stack(states).to(self.device)}
        length = padded_length(max(lengths), step)
        # padded first, then moved: a GPU is sent one tensor, not one per record
        return batch | {
            "states": pad(states, length).to(self.device),
            "mask": mask_of(lengths, length).to(self.device),
        }


class CachedActivations(FrozenActivations):
    """Reads frozen activations from a file that only its owner may read; they are the same bits as computed anew."""

    recomputes = False

    def __init__(
        self,
        model: AdaptedModel,
        records: Records,
        device: torch.device,
        path: Path,
        *,
        storage: Storage = "float32",
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(model, records, device, storage=storage)
        self._rows = row_offsets(model, records)
        if not path.exists():
            _build(self, path, on_batch)
        self._stored = ActivationFile(path, width=model.width, dtype=storage)

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Return the activations of some records from the file."""
        stored = [self._stored.read(self._rows[i], self._rows[i + 1]) for i in indices]
        return [torch.from_numpy(rows).float() for rows in stored]


def open_activations(
    model: AdaptedModel,
    records: Records,
    device: torch.device,
    *,
    folder: Path | None,
    limit_bytes: int,
    storage: Storage = "float32",
    on_batch: Callable[[], None] = lambda: None,
) -> FrozenActivations:
    """Return cached activations if there is something to cache and room for it; otherwise compute them per batch.

    `on_batch` is called before each batch of a cache that is built; what it raises ends that, and leaves no file.
    """
    if folder is None or not model.has_frozen_layers or not len(records):
        return FrozenActivations(model, records, device, storage=storage)
    size_bytes = int(row_offsets(model, records)[-1]) * model.width * np.dtype(storage).itemsize
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = _cache_path(folder, model, records, model.frozen_id, storage)
    if not path.exists() and size_bytes > min(limit_bytes, shutil.disk_usage(folder).free // 2):
        return FrozenActivations(model, records, device, storage=storage)
    return CachedActivations(model, records, device, path, storage=storage, on_batch=on_batch)


def activations_for(
    model: AdaptedModel,
    records: Records,
    device: torch.device,
    performance: Performance,
    folder: Path | None,
    on_batch: Callable[[], None] = lambda: None,
) -> FrozenActivations:
    """Return cached activations if performance settings and disk space allow it; otherwise compute them per batch.

    Without a folder there is no cache. `on_batch` is as for `open_activations`.
    """
    return open_activations(
        model,
        records,
        device,
        folder=folder if performance.activation_cache else None,
        limit_bytes=performance.activation_cache_limit_bytes,
        storage=performance.activation_storage,
        on_batch=on_batch,
    )


def rounded(states: Tensor, storage: Storage) -> Tensor:
    """Round states as their storage does; half precision also limits them to its largest finite number."""
    if storage == "float32":
        return states
    most = torch.finfo(torch.float16).max
    return states.clamp(-most, most).half().float()


def row_offsets(model: AdaptedModel, records: Records, *, pooled: bool | None = None) -> NDArray[np.int64]:
    """Return where each record's rows begin in the cache; it has one row per token, or one per record if pooled."""
    return np.concatenate([[0], np.cumsum(model.state_rows(records, pooled=pooled))])


def canonical_batches(model: AdaptedModel, records: Records, indices: Sequence[int]) -> Iterator[list[int]]:
    """Group records by padded length; a group is at least one record smaller than a canonical batch."""
    sizes = shapes(records, _below(model))[:, 0]
    by_length: dict[int, list[int]] = {}
    for index in dict.fromkeys(indices):
        by_length.setdefault(int(sizes[index]), []).append(index)
    for length, group in by_length.items():
        at_once = canonical_rows(length + model.kind.fixed_tokens) - 1
        for start in range(0, len(group), at_once):
            yield group[start : start + at_once]


def canonical_rows(length: int) -> int:
    """Return the rows of a canonical batch of this padded length: fewer for long records, to save memory."""
    return max(2, min(MOST_ROWS, CANONICAL_TOKENS // length))


def states_or_nan(model: AdaptedModel, records: Records, indices: Sequence[int], device: torch.device) -> list[Tensor]:
    """Compute the frozen activations of some records, and NaN for a record that makes the model raise.

    Guarantee: a record that makes frozen layers raise changes no other record's activations, and stops nothing.
    """
    try:
        return canonical_states(model, records, indices, device)
    except Exception as error:
        if not may_be_a_records_own(error):
            raise
        if len(indices) > 1:
            return [states for index in indices for states in states_or_nan(model, records, [index], device)]
        # its gradient will not be finite, and counts as zero
        log.exception("Record %d made the frozen layers raise; it counts as nothing.", indices[0])
        return [torch.full((int(model.state_rows(records)[indices[0]]), model.width), math.nan, device=device)]


def canonical_states(
    model: AdaptedModel, records: Records, indices: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Compute the frozen activations of some records in one canonical batch."""
    batch = collate(records, indices, _below(model), device)
    length = batch["mask"].shape[1] if "mask" in batch else 1
    states = model.frozen_states(_canonical(batch, canonical_rows(length + model.kind.fixed_tokens)))
    lengths = model.state_rows(records)[list(indices)].tolist()
    return [states[row, : lengths[row]].clone() for row in range(len(indices))]


def _canonical(batch: Batch, rows: int) -> Batch:
    """Fill a batch with dummies up to its canonical rows; the last row is always a dummy, so masks always apply."""
    full: Batch = {}
    for name, tensor in batch.items():
        full[name] = tensor.new_zeros(rows, *tensor.shape[1:])
        full[name][: len(tensor)] = tensor
    if "mask" in batch:
        full["mask"][len(batch["mask"]) :, 0] = 1
    return full


def _below(model: AdaptedModel) -> Fills:
    return {name: model.kind.fills[name] for name in model.frozen_fields}


def _build(activations: CachedActivations, path: Path, on_batch: Callable[[], None]) -> None:
    # written beside its final name: a crash leaves no half-filled cache behind
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    model, records = activations.model, activations.records
    stored = ActivationFile(unfinished, width=model.width, dtype=activations.storage, new=True)
    rows, below = row_offsets(model, records), _shallower_cache(activations, path.parent)
    try:
        for indices in canonical_batches(model, records, range(len(records))):
            on_batch()
            if below is None:
                activated = states_or_nan(model, records, indices, activations.device)
            else:
                activated = _pooled_from(activations, *below, indices)
            for index, states in zip(indices, activated, strict=True):
                stored.write(rows[index], rounded(states, activations.storage).cpu().numpy())
        stored.flush()
        size_bytes = unfinished.stat().st_size
        unfinished.replace(path)
        if size_bytes >= RESTING_BYTES:
            model.rest_frozen_layers()
    finally:
        unfinished.unlink(missing_ok=True)  # a full disk or an interruption leaves activations of private records


def _cache_path(folder: Path, model: AdaptedModel, records: Records, frozen_id: str, storage: Storage) -> Path:
    return folder / f"{records.digest(model.frozen_fields)}-{frozen_id}.{SUFFIXES[storage]}"


def _shallower_cache(activations: CachedActivations, folder: Path) -> tuple[int, ActivationFile] | None:
    """Return cached activations of a lower cut of the same model and dataset, a short cut to pooled features."""
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
