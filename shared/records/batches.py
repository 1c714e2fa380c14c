"""Make physical batches: some records as tensors, padded at their end.

Lengths are rounded up to a multiple, so that records of similar length share one shape. Matrix kernels depend on
shapes: with few shapes, a record's activations are the same bits whichever records share its batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.records.ragged import Records

LENGTH_STEP = 8
Batch = dict[str, Tensor]
"""Fields by name (records, …); `mask` (records, length): 1 on what is not padding; `usable` (records,)."""
Shapes = NDArray[np.int64]
Fills = Mapping[str, int | None]
"""Padding value by field; None for a field whose records all have one length. Other fields never enter a batch."""


def padded_length(length: int, step: int = LENGTH_STEP) -> int:
    """Return the length to which `length` entries are padded."""
    return max(1, -(-length // step)) * step


def shapes(records: Records, fills: Fills, *, step: int = LENGTH_STEP) -> Shapes:
    """Return the length of every record's padded fields (records, fields); a column of ones if none is padded."""
    padded = [records[name].lengths for name, fill in fills.items() if fill is not None]
    if not padded:
        return np.ones((len(records), 1), dtype=np.int64)
    rounded: NDArray[np.int64] = np.maximum(1, -(-np.stack(padded, axis=1) // step)) * step
    return rounded


def canonical_shapes(records: Records, fills: Fills, *, step: int = LENGTH_STEP) -> Shapes:
    """Return every record's own shape, which follows from its lengths alone (records, fields + 1).

    The last column is 1 where nothing of the masked field, the first one, is padding. A model leaves out a mask of
    ones, and computes other bits without it: such records never share a batch with padded ones.
    """
    padded = shapes(records, fills, step=step)
    masked = [records[name].lengths for name, fill in fills.items() if fill is not None][:1]
    full = (masked[0] == padded[:, 0]) if masked else np.zeros(len(records), bool)
    return np.column_stack([padded, full])


def grouped(
    shapes: Sequence[tuple[int, ...]], chosen: NDArray[np.int64], rows: Mapping[tuple[int, ...], int]
) -> list[list[int]]:
    """Cut a logical batch into physical ones of one shape, shortest first.

    Args:
        shapes: of each record of the batch.
        chosen: indices of the logical batch.
        rows: the most records in a physical batch, by shape.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for shape, index in zip(shapes, chosen.tolist(), strict=True):
        groups.setdefault(shape, []).append(index)
    return [
        group[start : start + rows[shape]]
        for shape, group in sorted(groups.items())
        for start in range(0, len(group), rows[shape])
    ]


def physical(sizes: Shapes, chosen: NDArray[np.int64], *, tokens: int, fixed: int = 0) -> list[list[int]]:
    """Cut a logical batch into physical ones of one shape, shortest first, at most `tokens` each.

    Args:
        sizes: as `shapes` gives them (records, fields).
        chosen: indices of the logical batch.
        tokens: the most in one physical batch; a longer record gets a batch of its own.
        fixed: tokens of a record beside its padded fields, such as the patches of an image.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    parts: list[list[int]] = []
    for index in chosen.tolist():
        groups.setdefault(tuple(sizes[index].tolist()), []).append(index)
    for shape in sorted(groups):
        group, at_once = groups[shape], max(1, tokens // (sum(shape) + fixed))
        parts += [group[start : start + at_once] for start in range(0, len(group), at_once)]
    return parts


def collate(
    records: Records, indices: Sequence[int], fills: Fills, device: torch.device, *, step: int = LENGTH_STEP
) -> Batch:
    """Stack records into tensors; each padded field gets the length of its longest entry."""
    batch: Batch = {"usable": torch.from_numpy(records.usable[list(indices)]).to(device)}
    for name, fill in fills.items():
        rows = [records[name][index] for index in indices]
        lengths = [len(row) for row in rows]
        length = max(lengths) if fill is None else padded_length(max(lengths), step)
        stacked = np.full((len(rows), length), 0 if fill is None else fill, dtype=_dtype(records[name].values.dtype))
        for target, row in zip(stacked, rows, strict=True):
            target[: len(row)] = row
        batch[name] = torch.from_numpy(stacked).to(device)
        if fill is not None and "mask" not in batch:
            batch["mask"] = mask_of(lengths, length).to(device)
    return batch


def pad(states: list[Tensor], length: int) -> Tensor:
    """Stack (tokens, width) tensors into (records, length, width), with zeros behind each end."""
    padded = states[0].new_zeros(len(states), length, states[0].shape[-1])
    for row, record in zip(padded, states, strict=True):
        row[: len(record)] = record
    return padded


def mask_of(lengths: Sequence[int], length: int) -> Tensor:
    """Make the attention mask (records, length), which is 1 on real tokens."""
    return (torch.arange(length)[None] < torch.tensor(lengths)[:, None]).long()


def _dtype(stored: np.dtype[Any]) -> Any:
    """Return the type that a field has in a tensor: whole numbers become int64, others float32, bytes stay bytes."""
    if stored == np.uint8:
        return np.uint8
    return np.int64 if stored.kind in "iu" else np.float32
