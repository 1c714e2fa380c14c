"""Put adapters on a frozen model, and pack the trainable state into one vector.

FFA-LoRA (Sun et al. 2024, arXiv:2403.12313): A is fixed, orthonormal and derived from a public seed, so it is never
sent; only B and the head are trained. The mean of the Bs is then exactly the mean of the updates. The other methods
start from the same public values and send everything that they train.
"""

import hashlib
import math
import re
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from peft import IA3Config, LoraConfig, PeftConfig, TaskType, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shared.adapted_model.targets import refuse_other_names, targets_of
from shared.base_models.layers import layer_count
from shared.errors import SettingsError
from shared.study.sections import Adapter

TRAINED_PARTS = {
    "ffa-lora": (".lora_B.",),
    "lora": (".lora_A.", ".lora_B."),
    "dora": (".lora_A.", ".lora_B.", ".lora_magnitude_vector."),
    "ia3": (".ia3_l.",),
    "head-only": (),
}


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the trainable tensors, in the order in which they are packed."""

    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def length(self) -> int:
        """Number of floats in the packed vector."""
        return sum(math.prod(shape) for _, shape in self.tensors)


def attach(base: PreTrainedModel, adapter: Adapter, peft_task: TaskType | None) -> nn.Module:
    """Put the adapter on the base model, and make trainable what its method trains; `head-only` changes nothing.

    Raises:
        SettingsError: no layer has the wanted names, or the model has fewer layers than `last:k` asks for.
    """
    if adapter.method == "head-only":
        unchanged: nn.Module = base
        return unchanged
    targets = targets_of(base, adapter)
    refuse_other_names(base, adapter, targets)
    numbers = _layer_numbers(base, adapter)
    if adapter.method == "ia3":
        config = _ia3(base, targets, peft_task)
    else:
        config = _lora(adapter, *_for_peft(base, targets, numbers), peft_task)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in base.modules())  # GPT-2's transposed layers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses an older name of a transformers attribute
            adapted: nn.Module = get_peft_model(base, config)
    except ValueError as error:
        raise SettingsError(
            f"Expected adapter.target_modules that name layers to adapt, got {targets} in {adapter.layers!r} layers.",
            hint=str(error),
        ) from None
    for name, parameter in adapted.named_parameters():
        wanted = any(part in name for part in TRAINED_PARTS[adapter.method])
        parameter.requires_grad_(wanted and _within(name, numbers))
        if ".lora_A." in name:
            _check_rank(*parameter.shape)
            if not parameter.is_meta:
                fixed = orthonormal_rows(parameter.shape[0], parameter.shape[1], seed=adapter.seed, name=name)
                parameter.data.copy_(torch.from_numpy(fixed))
    if not any(p.requires_grad for p in adapted.parameters()):
        raise SettingsError(f"Expected adapter.target_modules in {adapter.layers!r} layers, got none: {targets}.")
    return adapted


def lowest_trained_layer(base: nn.Module, adapter: Adapter) -> int | None:
    """Return the index of the lowest trained layer; the layer count if only a head is trained, None if uncut."""
    count = layer_count(base)
    if count is None or adapter.method == "head-only":
        return count
    return 0 if adapter.layers == "all" else count - int(adapter.layers.removeprefix("last:"))


def orthonormal_rows(rows: int, width: int, *, seed: int, name: str) -> NDArray[np.float32]:
    """Draw A (rows, width) with orthonormal rows from a public seed and the tensor's name, so that it is never sent.

    Every machine draws the same, up to the last bits of its linear algebra library.

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
        raise SettingsError(
            f"Expected adapter.rank of at most the layer's width {width}, got rank={rows}.",
            hint="Ranks of 4 to 16 are usual.",
        )


def layout_of(model: nn.Module) -> Layout:
    """Return the layout of the trainable tensors, sorted by name."""
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
            size = math.prod(shape)
            named[name].copy_(torch.from_numpy(vector[start : start + size].reshape(shape)))
            start += size


def _lora(adapter: Adapter, targets: list[str], numbers: list[int] | None, peft_task: TaskType | None) -> PeftConfig:
    alpha = adapter.alpha or adapter.rank
    return LoraConfig(
        task_type=peft_task,
        r=adapter.rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=targets,
        layers_to_transform=numbers,
        rank_pattern=dict(adapter.rank_pattern),
        alpha_pattern={name: alpha * _same_scale(adapter, rank) for name, rank in adapter.rank_pattern.items()},
        use_rslora=adapter.rank_stabilized,
        use_dora=adapter.method == "dora",
    )


def _for_peft(base: nn.Module, targets: list[str], numbers: list[int] | None) -> tuple[list[str], list[int] | None]:
    """Return targets and layer numbers for PEFT, which overlooks outermost layers: these are named in full."""
    if numbers is None:
        return targets, None
    wanted = tuple(f".{target}" for target in targets)
    named = [name for name, _ in base.named_modules() if f".{name}".endswith(wanted) and _within(f".{name}", numbers)]
    outermost = any(re.match(r"\w+\.\d+\.", name) for name in named)  # as in a bare ViT, Llama or GPT-2
    return (named, None) if outermost else (targets, numbers)


def _same_scale(adapter: Adapter, rank: int) -> float:
    """Return the factor on alpha that gives a layer of another rank the same scale as all others."""
    ratio = rank / adapter.rank
    return math.sqrt(ratio) if adapter.rank_stabilized else ratio


def _ia3(base: PreTrainedModel, targets: list[str], peft_task: TaskType | None) -> PeftConfig:
    feedforward = [name for name in IA3_FEEDFORWARD.get(base.config.model_type, []) if name in targets]
    return IA3Config(task_type=peft_task, target_modules=targets, feedforward_modules=feedforward)


def _layer_numbers(base: PreTrainedModel, adapter: Adapter) -> list[int] | None:
    if adapter.layers == "all":
        return None
    count, wanted = getattr(base.config, "num_hidden_layers", None), int(adapter.layers.removeprefix("last:"))
    staged = hasattr(base.config, "depths")  # Swin, SegFormer: what is counted there are stages of several layers
    if not isinstance(count, int) or staged:
        raise SettingsError(
            f"Expected adapter.layers='all' for a {base.config.model_type}, got {adapter.layers!r}.",
            hint="Its layers are not counted from one end to the other.",
        )
    depths = {getattr(base.config, name, None) or count for name in ("num_decoder_layers", "decoder_layers")}
    if base.config.is_encoder_decoder and depths != {count}:
        raise SettingsError(
            f"Expected as many decoder layers as encoder layers ({count}) for adapter.layers={adapter.layers!r}, "
            f"got {max(depths - {count})}.",
            hint="Choose adapter.layers = 'all'.",
        )
    if wanted > count:
        raise SettingsError(
            f"Expected adapter.layers of at most 'last:{count}' for this model, got 'last:{wanted}'.",
            hint=f"It has {count} layers; 'all' takes every one.",
        )
    return list(range(count - wanted, count))


def _within(name: str, numbers: list[int] | None) -> bool:
    """Return true if a tensor belongs to one of these layers; PEFT's IA3 has no option for that."""
    layer = re.search(r"\.(\d+)\.", name)
    return numbers is None or (layer is not None and int(layer.group(1)) in numbers)
