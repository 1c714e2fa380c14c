"""LoRA on a frozen encoder, and the trainable state as one packed vector.

FFA-LoRA (Sun et al. 2024, arXiv:2403.12313): A is fixed, orthonormal and derived from a public seed, so it is never
sent; only B and the head are trained. The mean of the Bs is then exactly the mean of the updates.
"""

import hashlib
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, TaskType, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGET_TABLE
from torch import nn
from transformers import PreTrainedModel

from shared.errors import SettingsError
from shared.layers import layer_count
from shared.study import Adapter


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the trainable tensors, in the order in which they are packed."""

    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def length(self) -> int:
        """Floats in the packed vector."""
        return sum(int(np.prod(shape)) for _, shape in self.tensors)


def attach(encoder: nn.Module, adapter: Adapter) -> nn.Module:
    """Put FFA-LoRA on the encoder: only B is trainable. With `head-only` the encoder stays as it is.

    Raises:
        SettingsError: no layer has the wanted names, or the encoder has fewer layers than `last:k` asks for.
    """
    if adapter.method == "head-only":
        return encoder
    targets = _targets(encoder, adapter)
    config = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=adapter.rank,
        lora_alpha=adapter.alpha or adapter.rank,
        lora_dropout=0.0,
        target_modules=targets,
        layers_to_transform=_layer_numbers(encoder, adapter),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an attribute's older name
            adapted: nn.Module = get_peft_model(encoder, config)
    except ValueError as error:
        raise SettingsError(
            f"Expected adapter.target_modules that name linear layers, got {targets}.", hint=str(error)
        ) from None
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(".lora_B." in name)
        if ".lora_A." not in name:
            continue
        _check_rank(*parameter.shape)
        if not parameter.is_meta:
            fixed = orthonormal_rows(parameter.shape[0], parameter.shape[1], seed=adapter.seed, name=name)
            parameter.data.copy_(torch.from_numpy(fixed))
    return adapted


def lowest_trained_layer(encoder: nn.Module, adapter: Adapter) -> int | None:
    """Index of the lowest layer that is trained; the layer count if only the head is; None if it cannot be cut."""
    count = layer_count(encoder)
    if count is None or adapter.method == "head-only":
        return count
    return 0 if adapter.layers == "all" else count - int(adapter.layers.removeprefix("last:"))


def orthonormal_rows(rows: int, width: int, *, seed: int, name: str) -> NDArray[np.float32]:
    """Draw A (rows, width) with orthonormal rows from a public seed and the tensor's name, so that it is never sent.

    The same on every machine up to the last bits of its linear algebra library.

    Raises:
        SettingsError: more rows than columns, so they cannot be orthonormal.
    """
    _check_rank(rows, width)
    entropy = int.from_bytes(hashlib.sha256(f"fedvault A {seed} {name}".encode()).digest())
    columns = np.random.default_rng(entropy).standard_normal((width, rows))
    q, r = np.linalg.qr(columns)
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T, dtype=np.float32)


def _check_rank(rows: int, width: int) -> None:
    if rows > width:
        raise SettingsError(f"Expected adapter.rank of at most the layer's width {width}, got rank={rows}.")


def layout_of(model: nn.Module) -> Layout:
    """The trainable tensors, sorted by name."""
    trained = [(name, tuple(p.shape)) for name, p in model.named_parameters() if p.requires_grad]
    return Layout(tuple(sorted(trained)))


def pack(model: nn.Module, layout: Layout) -> NDArray[np.float32]:
    """Copy the trainable state into one float32 vector of `layout.length`."""
    named = dict(model.named_parameters())
    parts = [named[name].detach().cpu().numpy().ravel() for name, _ in layout.tensors]
    return np.concatenate(parts).astype(np.float32, copy=True)


def unpack(model: nn.Module, layout: Layout, vector: NDArray[np.float32]) -> None:
    """Copy a packed vector into the model, in place: replaced parameters would silently leave the optimizer."""
    if vector.shape != (layout.length,):
        raise SettingsError(f"Expected a packed adapter of {layout.length} floats, got {vector.shape}.")
    named, start = dict(model.named_parameters()), 0
    with torch.no_grad():
        for name, shape in layout.tensors:
            size = int(np.prod(shape))
            named[name].copy_(torch.from_numpy(vector[start : start + size].reshape(shape)))
            start += size


def _targets(encoder: PreTrainedModel, adapter: Adapter) -> list[str]:
    if adapter.target_modules != "auto":
        return list(adapter.target_modules)
    kind = encoder.config.model_type
    if kind not in TARGET_TABLE:
        raise SettingsError(
            f"Expected a model type in PEFT's table of targets, got {kind!r}.",
            hint="Name the linear layers yourself in adapter.target_modules.",
        )
    return list(TARGET_TABLE[kind])


def _layer_numbers(encoder: PreTrainedModel, adapter: Adapter) -> list[int] | None:
    if adapter.layers == "all":
        return None
    count, wanted = int(encoder.config.num_hidden_layers), int(adapter.layers.removeprefix("last:"))
    if wanted > count:
        raise SettingsError(f"Expected adapter.layers of at most 'last:{count}' for this model, got 'last:{wanted}'.")
    return list(range(count - wanted, count))
