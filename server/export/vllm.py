"""Writes an adapter of a language model as vLLM takes it: LoRA of one allowed rank for all layers, nothing else."""

import json
from fnmatch import fnmatch
from pathlib import Path

from safetensors.torch import save

from server.export.adapter import ADAPTER_FILE, PROCESSOR_FILES
from server.export.one_rank import DOWN, UP, WEIGHTS, of_one_rank
from server.export.served_card import write_served_card
from shared.adapted_model.finished import STUDY_FILE
from shared.files import write_atomically

RANKS = (8, 16, 32, 64, 128, 256)
"""What vLLM's kernels are made for; its own default of --max-lora-rank is 16."""


def write_vllm(exported: Path, folder: Path) -> int:
    """Write an adapter for `vllm serve BASE --enable-lora --lora-modules NAME=FOLDER --max-lora-rank RANK`.

    Args:
        exported: as `adapter.export` wrote it.
        folder: new.

    Returns:
        The rank.

    Raises:
        SettingsError: no such folder, or an adapter that vLLM does not serve.
    """
    adapter = of_one_rank(exported, lambda largest: next((rank for rank in RANKS if rank >= largest), None))
    rank = adapter.rank
    written = {
        name + end: tensor.contiguous()
        for name, matrices in adapter.layers.items()
        for end, tensor in zip((DOWN, UP), matrices, strict=True)
    }
    folder.mkdir(parents=True)
    write_atomically(folder / WEIGHTS, save(written, {"format": "pt"}))
    plain = {"r": rank, "lora_alpha": rank, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    write_atomically(folder / ADAPTER_FILE, (json.dumps({**adapter.config, **plain}, indent=1) + "\n").encode())
    write_atomically(folder / STUDY_FILE, (exported / STUDY_FILE).read_bytes())
    for path in sorted(adapter.base_files.directory.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in PROCESSOR_FILES):
            write_atomically(folder / path.name, path.read_bytes())
    how = (
        "This folder is the adapter with one rank for all layers, as vLLM takes it; `base` is the folder of the base "
        f"model:\n\n```console\nvllm serve base --enable-lora --max-lora-rank {rank} --lora-modules adapter=FOLDER\n```"
    )
    write_served_card(exported, folder, library="peft", how=how)
    return rank
