"""Writes an adapter of a language model as llama.cpp takes it: LoRA as GGUF, for a base model that is GGUF as well."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig

from server.export.one_rank import of_one_rank
from server.export.served_card import write_served_card
from shared.adapted_model.finished import STUDY_FILE
from shared.errors import SettingsError
from shared.files import write_atomically

ADAPTER = "adapter.gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""llama.cpp's name of a model type's architecture."""
PERMUTED = ("llama",)
"""Architectures whose query and key llama.cpp keeps in an order of its own."""
WITHIN = "base_model.model."


def write_gguf(exported: Path, folder: Path) -> int:
    """Write an adapter for `llama-cli -m BASE.gguf --lora FOLDER/adapter.gguf`.

    Args:
        exported: as `adapter.export` wrote it.
        folder: new.

    Returns:
        The rank.

    Raises:
        SettingsError: gguf is not installed, no such folder, or an adapter of a model whose names llama.cpp changes.
    """
    gguf = _gguf()
    adapter = of_one_rank(exported, lambda largest: largest)
    config: Any = AutoConfig.from_pretrained(adapter.base_files.directory)
    if config.model_type not in ARCHITECTURES:
        raise SettingsError(
            f"Expected a base model of type {', '.join(ARCHITECTURES)}, got {config.model_type}.",
            hint="export --merge writes the whole model, which llama.cpp's own converter reads.",
        )
    architecture = ARCHITECTURES[config.model_type]
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    with TemporaryDirectory() as scratch:
        writer = gguf.GGUFWriter(Path(scratch) / ADAPTER, architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.rank))
        for layer, (down, up) in adapter.layers.items():
            name = names.get_name(layer.removeprefix(WITHIN))
            if name is None:
                raise SettingsError(
                    f"Expected layers that llama.cpp has, got {layer}.", hint="export --merge writes the whole model."
                )
            rows = up.numpy()
            if architecture in PERMUTED:
                rows = in_its_order(rows, name, config)
            writer.add_tensor(f"{name}.weight.lora_a", np.ascontiguousarray(down.numpy()))
            writer.add_tensor(f"{name}.weight.lora_b", np.ascontiguousarray(rows))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        content = (Path(scratch) / ADAPTER).read_bytes()
    folder.mkdir(parents=True)
    write_atomically(folder / ADAPTER, content)
    write_atomically(folder / STUDY_FILE, (exported / STUDY_FILE).read_bytes())
    how = (
        f"`{ADAPTER}` is the adapter for a base model that is GGUF itself:\n\n"
        f"```console\nllama-cli -m base.gguf --lora {ADAPTER}\n```"
    )
    write_served_card(exported, folder, library="gguf", how=how)
    return adapter.rank


def in_its_order(rows: NDArray[np.float32], name: str, config: Any) -> NDArray[np.float32]:
    """Reorder the outputs of query and key: llama.cpp rotates neighbours, transformers the two halves of a head."""
    if not name.endswith(("attn_q", "attn_k")):
        return rows
    heads = config.num_attention_heads if name.endswith("attn_q") else config.num_key_value_heads
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise SettingsError("Expected gguf, got none.", hint="pip install 'fedvault[gguf]'") from None
    return gguf
