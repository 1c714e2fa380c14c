"""Names the weights that a base model is held in: two machines that round its files alike have one name for them."""

import hashlib
from typing import Any

import torch
from torch import nn

from shared.base_models.four_bits import BLOCK
from shared.base_models.load import load_base
from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError
from shared.study.sections import BaseWeights, Model

SETTINGS: dict[BaseWeights, str] = {"bfloat16": "bfloat16", "4bit": f"nf4 blocks of {BLOCK} float32 scales, bfloat16"}


def loaded_fingerprint(model: nn.Module, base_weights: BaseWeights) -> str:
    """Return the SHA-256 over how weights are held, and over every one of them: name, type, shape and bytes.

    Guarantee: each changed bit of a base model in short numbers changes the fingerprint of what was loaded.

    Args:
        model: as it was loaded, before anything is put on it.
        base_weights: as the study says.
    """
    digest = hashlib.sha256(f"{SETTINGS[base_weights]}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def check_loaded(model: nn.Module, declared: Model) -> None:
    """Refuse weights that are not held as the study's other sites hold theirs.

    Guarantee: a node trains on no other bytes of a base model than the study names.

    Args:
        model: as it was loaded, before anything is put on it.
        declared: of the study.

    Raises:
        SettingsError: they have another fingerprint.
    """
    if declared.loaded_fingerprint is None:
        return
    loaded = loaded_fingerprint(model, declared.base_weights)
    if loaded != declared.loaded_fingerprint:
        raise SettingsError(
            f"Expected a base model whose weights in {declared.base_weights} have the fingerprint "
            f"{declared.loaded_fingerprint}, got {loaded}.",
            hint="The files are the right ones, but this machine rounds them otherwise: run the versions of FedVault "
            "and PyTorch that the server runs.",
        )


def pinned_weights(declared: Model, base_files: BaseModelFiles, auto: Any) -> dict[str, str]:
    """Return what a study pins of how this machine holds its base model; nothing in float32, the files' own bytes.

    Args:
        declared: of the study.
        base_files: the model's files.
        auto: the transformers class that the task needs.

    Raises:
        SettingsError: as `load_base`, or the study names other weights already.
    """
    if declared.base_weights == "float32":
        return {}
    model = load_base(base_files, auto, base_weights=declared.base_weights)
    check_loaded(model, declared)
    return {"loaded_fingerprint": loaded_fingerprint(model, declared.base_weights)}
