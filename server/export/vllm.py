"""Writes an adapter of a language model as vLLM takes it: LoRA of one allowed rank for all layers, nothing else."""

import json
import math
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from server.export.adapter import ADAPTER_FILE, PROCESSOR_FILES
from shared.adapted_model.finished import STUDY_FILE, read_exported
from shared.errors import SettingsError
from shared.files import write_atomically

RANKS = (8, 16, 32, 64, 128, 256)
"""What vLLM's kernels are made for; its own default of --max-lora-rank is 16."""
WEIGHTS = "adapter_model.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def write_vllm(exported: Path, folder: Path) -> int:
    """Write an adapter for `vllm serve BASE --enable-lora --lora-modules NAME=FOLDER --max-lora-rank RANK`.

    Ranks that differ by layer are padded with zeros to the next allowed one, and each layer's scale goes into its B:
    the product is the same.

    Args:
        exported: as `adapter.export` wrote it.
        folder: new.

    Returns:
        The rank.

    Raises:
        SettingsError: no such folder, or an adapter that vLLM does not serve.
    """
    study, base_files, _ = read_exported(exported)
    method = study.adapter.method
    if study.task.kind != "causal-lm" or method not in ("ffa-lora", "lora"):
        raise SettingsError(
            f"Expected a language model with adapter.method ffa-lora or lora, got {study.task.kind} with {method}.",
            hint="export --merge writes the whole model, which vLLM serves without an adapter.",
        )
    config = json.loads((exported / ADAPTER_FILE).read_text())
    tensors = load_file(exported / WEIGHTS)
    layers = sorted(name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN))
    largest = max(tensors[layer + DOWN].shape[0] for layer in layers)
    rank = next((allowed for allowed in RANKS if allowed >= largest), None)
    if rank is None or tensors.keys() - {layer + end for layer in layers for end in (DOWN, UP)}:
        raise SettingsError(
            f"Expected LoRA of rank {RANKS[-1]} at most, got rank {largest} and {len(tensors)} tensors.",
            hint="export --merge writes the whole model, which vLLM serves without an adapter.",
        )
    written = dict[str, Tensor]()
    for layer in layers:
        down, up = tensors[layer + DOWN], tensors[layer + UP]
        missing = rank - down.shape[0]
        written[layer + DOWN] = functional.pad(down, (0, 0, 0, missing)).contiguous()
        written[layer + UP] = functional.pad(_scale(config, layer, down.shape[0]) * up, (0, missing)).contiguous()
    folder.mkdir(parents=True)
    write_atomically(folder / WEIGHTS, save(written, {"format": "pt"}))
    plain = {"r": rank, "lora_alpha": rank, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    write_atomically(folder / ADAPTER_FILE, (json.dumps(config | plain, indent=1) + "\n").encode())
    write_atomically(folder / STUDY_FILE, (exported / STUDY_FILE).read_bytes())
    for path in sorted(base_files.directory.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in PROCESSOR_FILES):
            write_atomically(folder / path.name, path.read_bytes())
    return rank


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> torch.Tensor:
    """Return alpha / rank of a layer, or alpha / sqrt(rank) with rsLoRA, as PEFT applies it."""
    alpha = next((value for name, value in config["alpha_pattern"].items() if layer.endswith(name)), None)
    alpha = config["lora_alpha"] if alpha is None else alpha
    return torch.tensor(alpha / (math.sqrt(rank) if config["use_rslora"] else rank))
