"""LoRA as servers of language models take it: one rank for all layers, and each layer's scale in its B."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from server.export.adapter import ADAPTER_FILE
from shared.adapted_model.finished import read_exported
from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError

WEIGHTS = "adapter_model.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class OneRank(NamedTuple):
    """An adapter whose layers have one rank, so that a product of A and B is added with no further scale."""

    rank: int
    layers: Mapping[str, tuple[Tensor, Tensor]]
    """A (rank, inputs) and B (outputs, rank), by PEFT's name of the layer."""
    config: Mapping[str, Any]
    """PEFT's configuration of what was exported."""
    base_files: BaseModelFiles


def of_one_rank(exported: Path, allowed: Callable[[int], int | None]) -> OneRank:
    """Read an adapter, padded with zeros where its layers' ranks differ: the products are the same.

    Args:
        exported: as `adapter.export` wrote it.
        allowed: returns the rank that is written, given the largest there is; None if there is none that large.

    Raises:
        SettingsError: no such folder, or an adapter of another kind.
    """
    study, base_files, _ = read_exported(exported)
    method = study.adapter.method
    if study.task.kind != "causal-lm" or method not in ("ffa-lora", "lora"):
        raise SettingsError(
            f"Expected a language model with adapter.method ffa-lora or lora, got {study.task.kind} with {method}.",
            hint="export --merge writes the whole model, which needs no adapter.",
        )
    config = json.loads((exported / ADAPTER_FILE).read_text())
    tensors = load_file(exported / WEIGHTS)
    names = sorted(name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN))
    largest = max(tensors[name + DOWN].shape[0] for name in names)
    rank = allowed(largest)
    if rank is None or tensors.keys() - {name + end for name in names for end in (DOWN, UP)}:
        raise SettingsError(
            f"Expected LoRA alone, of a rank that is served, got rank {largest} and {len(tensors)} tensors.",
            hint="export --merge writes the whole model, which needs no adapter.",
        )
    layers, scale = dict[str, tuple[Tensor, Tensor]](), _scale(config)
    for name in names:
        down, up = tensors[name + DOWN], tensors[name + UP]
        missing = rank - down.shape[0]
        scaled = scale * up
        layers[name] = (functional.pad(down, (0, 0, 0, missing)), functional.pad(scaled, (0, missing)))
    return OneRank(rank, layers, config, base_files)


def _scale(config: Mapping[str, Any]) -> Tensor:
    """Return alpha / rank, or alpha / sqrt(rank) with rsLoRA: the same for all layers, whatever their ranks are."""
    rank = config["r"]
    return torch.tensor(config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank))
