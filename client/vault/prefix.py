"""The frozen part of the model, computed once per record and kept.

Below the lowest trained layer nothing changes during a study, so its activations can be stored. They are computed in
canonical batches: a fixed number of rows, lengths rounded up to a multiple of 8, one row always a dummy. Matrix kernels
depend on shapes, so with fixed shapes a record's activations are the same bits whoever shares its batch, and whether
they come from the cache or are computed anew.

Guarantee: a record's activations depend on that record alone, to the last bit; the cache changes no update.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.vault.datasets import TokenizedDataset
from shared.adapted_model import AdaptedModel
from shared.layers import mask_of, pad

CANONICAL_ROWS = 16
LENGTH_STEP = 8


def padded_length(tokens: int) -> int:
    """Length to which a record of so many tokens is padded."""
    return max(1, -(-tokens // LENGTH_STEP)) * LENGTH_STEP


class Prefix:
    """Gives the activations that training starts from, computing them each time."""

    def __init__(self, model: AdaptedModel, dataset: TokenizedDataset, device: torch.device) -> None:
        self.model, self.dataset, self.device = model, dataset, device

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Activations of the records, each (tokens, width), or token ids (tokens,) if the model cannot be cut."""
        if not self.model.frozen_prefix:
            return [torch.from_numpy(self.dataset.record(i).astype(np.int64)).to(self.device) for i in indices]
        found: dict[int, Tensor] = {}
        for batch in canonical_batches(self.dataset, indices):
            found |= zip(batch, canonical_states(self.model, self.dataset, batch, self.device), strict=True)
        return [found[i] for i in indices]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What the trained part of the model takes for a physical batch: padded activations, and the mask."""
        lengths = [int(self.dataset.lengths[i]) for i in indices]
        length, states = padded_length(max(lengths)), self.states(indices)
        mask = mask_of(lengths, length).to(self.device)
        if self.model.head_only:
            return torch.stack(states), mask
        if not self.model.frozen_prefix:
            return pad([ids[:, None] for ids in states], length).squeeze(-1), mask
        return pad(states, length), mask


class CachedPrefix(Prefix):
    """The same activations, bit for bit, from a memory-mapped file that only this node reads."""

    def __init__(self, model: AdaptedModel, dataset: TokenizedDataset, device: torch.device, path: Path) -> None:
        super().__init__(model, dataset, device)
        self._rows, width = row_offsets(model, dataset), _width(model)
        if not path.exists():
            _build(self, path, shape=(int(self._rows[-1]), width))
        self._stored = np.memmap(path, dtype=np.float32, mode="r", shape=(int(self._rows[-1]), width))

    def states(self, indices: Sequence[int]) -> list[Tensor]:
        """Activations of the records, read back."""
        kept = [np.array(self._stored[self._rows[i] : self._rows[i + 1]]) for i in indices]
        return [torch.from_numpy(rows).to(self.device) for rows in kept]


def open_prefix(
    model: AdaptedModel, dataset: TokenizedDataset, device: torch.device, *, folder: Path | None, limit_bytes: int
) -> Prefix:
    """Open the cache for this model and dataset, or compute each time if there is nothing to keep or no room for it."""
    if folder is None or not model.frozen_prefix or not len(dataset):
        return Prefix(model, dataset, device)
    size_bytes = int(row_offsets(model, dataset)[-1]) * _width(model) * 4
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = _cache_path(folder, dataset, model.prefix_id)
    if not path.exists() and size_bytes > min(limit_bytes, shutil.disk_usage(folder).free // 2):
        return Prefix(model, dataset, device)
    return CachedPrefix(model, dataset, device, path)


def row_offsets(model: AdaptedModel, dataset: TokenizedDataset) -> NDArray[np.int64]:
    """Where each record's rows begin in the cache: one row per token, or one per record if only the head is trained."""
    return np.arange(len(dataset) + 1, dtype=np.int64) if model.head_only else dataset.offsets


def canonical_batches(dataset: TokenizedDataset, indices: Sequence[int]) -> Iterator[list[int]]:
    """Group records by padded length, at most one fewer than the canonical rows in a group."""
    by_length: dict[int, list[int]] = {}
    for index in dict.fromkeys(indices):
        by_length.setdefault(padded_length(int(dataset.lengths[index])), []).append(index)
    for group in by_length.values():
        for start in range(0, len(group), CANONICAL_ROWS - 1):
            yield group[start : start + CANONICAL_ROWS - 1]


def canonical_states(
    model: AdaptedModel, dataset: TokenizedDataset, batch: Sequence[int], device: torch.device
) -> list[Tensor]:
    """Run the frozen part on one canonical batch; the last row is always a dummy, so a mask is always needed."""
    lengths = [int(dataset.lengths[i]) for i in batch] + [1] * (CANONICAL_ROWS - len(batch))
    length = padded_length(max(lengths))
    ids = torch.zeros(CANONICAL_ROWS, length, dtype=torch.long)
    for row, index in enumerate(batch):
        ids[row, : lengths[row]] = torch.from_numpy(dataset.record(index).astype(np.int64))
    states = model.prefix(ids.to(device), mask_of(lengths, length).to(device))
    kept = [1] * len(batch) if model.head_only else lengths
    return [states[row, : kept[row]].clone() for row in range(len(batch))]


def _width(model: AdaptedModel) -> int:
    return int(model.head.in_features)


def _build(prefix: CachedPrefix, path: Path, *, shape: tuple[int, int]) -> None:
    # written beside its final name: a crash leaves no half-filled cache behind
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    stored = np.memmap(unfinished, dtype=np.float32, mode="w+", shape=shape)
    unfinished.chmod(0o600)
    rows, dataset = row_offsets(prefix.model, prefix.dataset), prefix.dataset
    below = _shallower_cache(prefix, path.parent)
    for batch in canonical_batches(dataset, range(len(dataset))):
        if below is None:
            found = canonical_states(prefix.model, dataset, batch, prefix.device)
        else:
            found = _pooled_from(prefix.model, *below, dataset, batch, prefix.device)
        for index, states in zip(batch, found, strict=True):
            stored[rows[index] : rows[index + 1]] = states.cpu().numpy()
    stored.flush()
    unfinished.replace(path)


def _cache_path(folder: Path, dataset: TokenizedDataset, prefix_id: str) -> Path:
    return folder / f"{dataset.digest}-{prefix_id}.f32"


def _shallower_cache(prefix: CachedPrefix, folder: Path) -> tuple[int, NDArray[np.float32]] | None:
    """Activations of a lower cut of the same model and dataset, from which pooled features are soon computed."""
    if not prefix.model.head_only:
        return None
    dataset, width = prefix.dataset, _width(prefix.model)
    for cut in range(int(prefix.model.cut or 0) - 1, 0, -1):
        path = _cache_path(folder, dataset, prefix.model.prefix_id_at(cut))
        if path.exists():
            return cut, np.memmap(path, dtype=np.float32, mode="r", shape=(int(dataset.offsets[-1]), width))
    return None


def _pooled_from(
    model: AdaptedModel,
    cut: int,
    stored: NDArray[np.float32],
    dataset: TokenizedDataset,
    batch: Sequence[int],
    device: torch.device,
) -> list[Tensor]:
    lengths = [int(dataset.lengths[i]) for i in batch] + [1] * (CANONICAL_ROWS - len(batch))
    length = padded_length(max(lengths))
    states = torch.zeros(CANONICAL_ROWS, length, stored.shape[1])
    for row, index in enumerate(batch):
        states[row, : lengths[row]] = torch.from_numpy(
            np.array(stored[dataset.offsets[index] : dataset.offsets[index + 1]])
        )
    pooled = model.pooled_from(cut, states.to(device), mask_of(lengths, length).to(device))
    return [pooled[row : row + 1].clone() for row in range(len(batch))]
