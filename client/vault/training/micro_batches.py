"""Cut logical batches into physical ones that fit into memory: what is known of shapes, and what is measured.

Which memory is short, and when, may depend on which records are there. So nothing that is decided after a record was
seen may change a bit of another's gradient: how many tokens a physical batch holds is measured on synthetic records,
before, and what training falls back to when memory runs out was shown by the probe to give the same bits.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from shared.adapted_model.dry_run import SHAPES_ONLY
from shared.adapted_model.model import AdaptedModel
from shared.base_models.checkpointed_layers import checkpointed
from shared.base_models.four_bits import BITS_PER_WEIGHT, layers_to_quantise
from shared.base_models.load import load_base
from shared.base_models.locate import BaseModelFiles
from shared.errors import lacks_memory
from shared.records.batches import collate
from shared.study.declaration import Study
from shared.tasks.fit import lengths_of
from shared.tasks.kind import TaskKind
from shared.tasks.registry import task_kind

if TYPE_CHECKING:
    from client.vault.training.trainer import PrivateTrainer

FEWEST_TOKENS = 64
SHARE_OF_GPU, SHARE_OF_MACHINE = 0.9, 0.5
"""Of a memory, what training may take: a machine's other programs and its records have the rest."""
BESIDE_KEPT = 2
"""Times what a forward pass keeps for the backward one: an estimate of a CPU's peak, whose own cannot be read."""


def fitting_tokens(
    trainer: "PrivateTrainer",
    *,
    needed: "Callable[[PrivateTrainer], int] | None" = None,
    room: Callable[[torch.device], int] | None = None,
) -> int:
    """Halve the tokens of a physical batch until one of the longest synthetic records fits; returns them.

    Guarantee: how large physical batches are follows from the device, the study and synthetic records alone.

    Args:
        trainer: on synthetic records; its tokens are where it begins, and stay as they are.
        needed: returns the bytes that one physical batch takes; default: measured.
        room: returns the bytes that training may take of a device; default: as the device says.
    """
    began, device = trainer.micro_batch_tokens, trainer.activations.device
    most, fits = (room or room_on)(device), False
    try:
        while not fits:
            try:
                fits = (needed or measured_bytes)(trainer) <= most
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
            if fits or trainer.micro_batch_tokens // 2 < FEWEST_TOKENS:
                break
            trainer.micro_batch_tokens //= 2
        return trainer.micro_batch_tokens
    finally:
        trainer.micro_batch_tokens = began


def room_on(device: torch.device) -> int:
    """Return the bytes that training may take of a device's memory, whatever records there are."""
    if device.type == "cuda":
        return int(SHARE_OF_GPU * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)))
    return int(SHARE_OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def measured_bytes(trainer: "PrivateTrainer") -> int:
    """Train on one physical batch of the longest synthetic records, and return the memory that it took with the model.

    A GPU tells its peak; elsewhere it is estimated from what the forward pass keeps.
    """
    model, device, before = trainer.model, trainer.activations.device, trainer.activations
    longest = [max(1, longest_declared(model.kind))] if trainer.activations.varying else [1]
    records = model.kind.synthetic(model.config, longest, variant=0)
    counted = KeptForBackward(model)
    try:
        trainer.train_on(type(before)(model, records, device, storage=before.storage))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with counted:
            trainer.per_example_gradients([0])
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
    finally:
        trainer.train_on(before)
        for parameter in model.parameters():
            parameter.grad_sample = None  # type: ignore[attr-defined]
    return BESIDE_KEPT * counted.bytes + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


@dataclass(frozen=True)
class Need:
    """The memory that a study needs for its model and for one physical batch, in bytes: an estimate."""

    weights: int
    batch: int | None
    """None where the model's code needs values, and cannot be run by shapes alone."""


def estimated(study: Study, base_files: BaseModelFiles, *, tokens: int) -> Need:
    """Estimate what a study needs, from shapes alone: no weights are read, and no memory is taken.

    Args:
        study: with this machine's performance settings.
        base_files: of its base model.
        tokens: of a physical batch.
    """
    base = load_base(base_files, task_kind(study.task).auto, with_weights=False)
    numbers = sum(p.numel() for p in base.parameters())
    short = sum(layer.weight.numel() for layer in layers_to_quantise(base)) if study.model.base_weights == "4bit" else 0
    wide = 4 if study.model.base_weights == "float32" else 2
    weights = int((numbers - short) * wide + short * BITS_PER_WEIGHT / 8)
    model = AdaptedModel(study, base_files, with_weights=False).to(SHAPES_ONLY)
    for parameter in model.base.parameters():
        if wide == 2 and not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    longest = max(1, longest_declared(model.kind))
    records = model.kind.synthetic(model.config, [longest], variant=0)
    at_once = max(1, tokens // (longest + model.kind.fixed_tokens))
    batch = collate(records, [0] * at_once, model.kind.fills, SHAPES_ONLY)
    batch["unpadded"] = batch["usable"]  # models look into masks, and there are no values
    counted = KeptForBackward(model)
    try:
        layers = checkpointed(model) if study.performance.activation_checkpointing else nullcontext()
        with counted, _FusedAttention(), layers:
            model.losses(batch)
    except Exception:  # each model's code has its own kinds of asking for values
        return Need(weights, None)
    return Need(weights, BESIDE_KEPT * counted.bytes)


class _Fused(torch.autograd.Function):
    """Attention by its shapes, keeping what a fused kernel keeps: never a number for each pair of tokens."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, attended)
        return attended


class _FusedAttention(TorchFunctionMode):
    """Lets a model without weights attend as it would on a device, in this thread alone."""

    def __torch_function__(self, function: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return _Fused.apply(*given[:3])  # type: ignore[no-untyped-call]
        if function is torch.Tensor.__bool__:
            return True  # decoders ask whether a batch is one text a row
        return function(*given, **(named or {}))


class KeptForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that forward passes keep for backward ones, beside the model's own."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self._alive = list[torch.UntypedStorage]()  # an address is given again once its tensor is gone
        super().__init__(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._alive.append(storage)
            self.bytes += storage.nbytes()
        return tensor


def longest_declared(kind: TaskKind) -> int:
    """Return the length at which a study cuts records, which many of them have; 0 if it declares none."""
    task = getattr(kind, "task", None)
    return max([0, *lengths_of(task).values(), getattr(task, "max_target_length", 0)])


def one_of_each(units: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Split places into sets that hold every unit once: a GPU adds to one place in any order, to others safely."""
    order = np.argsort(units, kind="stable")
    firsts = np.searchsorted(units[order], units[order], side="left")
    turns = np.empty(len(units), np.int64)
    turns[order] = np.arange(len(units)) - firsts
    for turn in range(int(turns.max(initial=-1)) + 1):
        yield np.flatnonzero(turns == turn)


def rows_of_units(units: NDArray[np.int64], chosen: NDArray[np.int64], *, unit_count: int) -> NDArray[np.int64]:
    """Return each record's unit's place among the chosen ones (records,); -1 for a record of another unit."""
    place = np.full(unit_count, -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    return place[units]
