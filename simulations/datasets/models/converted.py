"""The last step of every conversion: files whose bytes follow from the source alone."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

VERSION = "transformers_version"


def save_weights(weights: Mapping[str, "torch.Tensor"], folder: Path) -> None:
    """Write float32 tensors to model.safetensors, in the order of their names."""
    import torch
    from safetensors.torch import save_file

    in_order = {name: weights[name].detach().to(torch.float32).contiguous() for name in sorted(weights)}
    save_file(in_order, folder / "model.safetensors", metadata={"format": "pt"})


def write_json(path: Path, content: Mapping[str, Any], without: Collection[str] = ()) -> None:
    """Write settings, sorted, without what depends on this machine: the fingerprint of a base model covers them."""
    settings = {key: value for key, value in content.items() if key not in {VERSION, *without}}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
