"""Tiny base models of many families with random weights, by task kind, and the families that are refused."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.support.mutated_models import save_tokenizer

TEXT = {"max_length": 24}
LABELS: dict[str, Any] = {"labels": ["no", "yes"]}
TASKS: dict[str, tuple[dict[str, Any], Any]] = {
    "sequence-classification": (LABELS | TEXT, AutoModel),
    "token-classification": ({"labels": ["O", "B-PER", "I-PER"]} | TEXT, AutoModel),
    "question-answering": (TEXT, AutoModel),
    "recommendation": ({"goal": "rating", "rating_range": [1, 5]} | TEXT, AutoModel),
    "multi-task": (
        {
            "tasks": {
                "mood": {"kind": "sequence-classification"} | LABELS | TEXT,
                "reading": {"kind": "question-answering"} | TEXT,
            }
        },
        AutoModel,
    ),
    "masked-lm": (TEXT, transformers.AutoModelForMaskedLM),
    "causal-lm": (TEXT, transformers.AutoModelForCausalLM),
    "seq2seq": (TEXT | {"max_target_length": 8}, transformers.AutoModelForSeq2SeqLM),
    "image-classification": (LABELS, AutoModel),
    "semantic-segmentation": (LABELS, AutoModel),
    "audio-classification": (LABELS | {"seconds": 0.4}, AutoModel),
    "speech-recognition": (
        {"seconds": 0.4, "max_target_length": 16},
        transformers.AutoModelForSpeechSeq2Seq,
    ),
}
"""A task of each kind, and the transformers class of a whole model for it."""
FAMILIES: dict[str, tuple[str, ...]] = {
    "sequence-classification": (
        "albert", "bert", "big_bird", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra",
        "ernie", "eurobert", "flaubert", "gpt2", "luke", "megatron-bert", "modernbert", "mpnet", "nomic_bert", "opt",
        "rembert", "roberta", "roformer", "xlm", "xlm-roberta",
    ),
    "token-classification": ("bert", "deberta-v2", "distilbert", "electra", "modernbert", "xlm-roberta"),
    "question-answering": ("albert", "bert", "electra", "mpnet", "roberta"),
    "recommendation": ("bert", "distilbert", "ernie", "modernbert", "mpnet"),
    "multi-task": ("bert", "distilbert", "eurobert", "mpnet", "roberta"),
    "masked-lm": ("albert", "bert", "deberta-v2", "eurobert", "mpnet", "nomic_bert", "rembert", "roberta"),
    "causal-lm": (
        "bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "granite", "llama", "mistral", "mixtral",
        "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "rwkv", "smollm3", "stablelm", "starcoder2",
    ),
    "seq2seq": (
        "bart", "blenderbot", "blenderbot-small", "longt5", "m2m_100", "marian", "mbart", "mt5", "pegasus", "plbart",
        "switch_transformers", "t5", "umt5",
    ),
    "image-classification": (
        "beit", "clip_vision_model", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit",
        "ijepa", "siglip_vision_model", "vit", "vit_msn",
    ),
    "semantic-segmentation": (
        "beit", "clip_vision_model", "data2vec-vision", "deit", "dinov2", "dinov3_vit", "siglip_vision_model", "vit",
    ),
    "audio-classification": ("data2vec-audio", "hubert", "sew", "unispeech", "unispeech-sat", "wav2vec2", "whisper"),
    "speech-recognition": ("whisper",),
}  # fmt: skip
"""Families that train privately, by task kind. Transcripts are written by Whisper alone."""
NOT_EXACT = r"^Expected (gradients within|one gradient per record).*; the base model is a '{}'\.$"
NO_ATTENTION = r"^Expected a model whose attention has layers named as query and value, got '{}'\.$"
CANNOT_RUN = r"^Expected a base model that can run task.kind=.*, got model type '{}': "
ONE_HEAD = r"^Expected an encoder with one language head, got model type '{}'\.$"
OTHER_SOUND = r"^Expected a base model that reads sound as Wav2Vec2 or Whisper do, got model type '{}' with a "
UNSUITED = r"^Expected a base model that suits the task, got model type '{}'\.$"
REFUSED: dict[tuple[str, str], str] = {
    ("sequence-classification", "canine"): r"^Expected a base model with one embedding for each token, got .*'{}'\.$",
    ("sequence-classification", "convbert"): NOT_EXACT,
    ("sequence-classification", "fnet"): NO_ATTENTION,
    ("sequence-classification", "ibert"): NO_ATTENTION,
    ("sequence-classification", "mobilebert"): NOT_EXACT,
    ("sequence-classification", "nystromformer"): NOT_EXACT,
    ("sequence-classification", "squeezebert"): NO_ATTENTION,
    ("sequence-classification", "t5"): CANNOT_RUN,
    ("sequence-classification", "xlnet"): NO_ATTENTION,
    ("sequence-classification", "xmod"): CANNOT_RUN,
    ("masked-lm", "convbert"): ONE_HEAD,
    ("masked-lm", "distilbert"): ONE_HEAD,
    ("masked-lm", "electra"): ONE_HEAD,
    ("masked-lm", "modernbert"): ONE_HEAD,
    ("masked-lm", "gpt2"): UNSUITED,
    ("masked-lm", "xlm"): r"^Expected an encoder with a language head of scores, got model type '{}'\.$",
    ("causal-lm", "mamba"): NO_ATTENTION,
    ("causal-lm", "vit"): UNSUITED,
    ("causal-lm", "xlnet"): NO_ATTENTION,
    ("seq2seq", "bert"): UNSUITED,
    ("seq2seq", "fsmt"): NOT_EXACT,
    ("seq2seq", "prophetnet"): NOT_EXACT,
    ("image-classification", "bert"): r"^Expected a base model that reads images, got model type '{}'\.$",
    ("image-classification", "clip"): r"^Expected a base model that reads images, got model type '{}'\.$",
    ("image-classification", "convnext"): NO_ATTENTION,
    ("image-classification", "efficientnet"): NO_ATTENTION,
    ("image-classification", "levit"): NO_ATTENTION,
    ("image-classification", "mobilevit"): CANNOT_RUN,
    ("image-classification", "poolformer"): NO_ATTENTION,
    ("image-classification", "pvt"): CANNOT_RUN,
    ("image-classification", "resnet"): NO_ATTENTION,
    ("image-classification", "vit_mae"): NOT_EXACT,
    ("semantic-segmentation", "swin"): r"^Expected a ViT or a SegFormer for masks, got model type '{}'\.$",
    ("audio-classification", "audio-spectrogram-transformer"): OTHER_SOUND,
    ("audio-classification", "moonshine"): OTHER_SOUND,
    ("audio-classification", "speech_to_text"): OTHER_SOUND,
    ("audio-classification", "wav2vec2-conformer"): OTHER_SOUND,
    ("audio-classification", "wavlm"): NOT_EXACT,
    ("speech-recognition", "moonshine"): OTHER_SOUND,
    ("speech-recognition", "speech_to_text"): OTHER_SOUND,
}
"""Families that are not trained, and the sentence that says so; {} is the model type."""
SIZES: dict[str, Any] = dict.fromkeys(
    (
        "hidden_size", "d_model", "n_embd", "dim", "emb_dim", "intermediate_size", "d_ff", "encoder_ffn_dim",
        "decoder_ffn_dim", "ffn_dim", "hidden_dim", "embedding_size", "word_embed_proj_dim", "input_embedding_size",
        "output_embedding_size", "image_size",
    ),
    16,
) | dict.fromkeys(
    (
        "num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer",
        "n_layers", "num_attention_heads", "num_heads", "n_head", "n_heads", "num_key_value_heads",
        "encoder_attention_heads", "decoder_attention_heads",
    ),
    2,
) | dict.fromkeys(("d_kv", "head_dim", "patch_size"), 8) | dict.fromkeys(("bos_token_id", "eos_token_id"), 1) | {
    "vocab_size": 20, "max_position_embeddings": 40, "n_positions": 40, "decoder_start_token_id": 0,
}  # fmt: skip
EARS: dict[str, Any] = {
    "conv_dim": [16, 16], "conv_kernel": [16, 8], "conv_stride": [40, 20], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "squeeze_factor": 1,
}  # fmt: skip
SPREAD = 0.2
"""Deviation of random weights: as small as models start, gradients would be too small to compare."""
WHISPER_MARKS = ["<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>"]


def make_folder(kind: str, family: str, folder: Path) -> None:
    """Save a tiny model of a family, as transformers builds it for another task where it has none for this one."""
    torch.manual_seed(0)
    config = _config(family)
    auto = TASKS[kind][1]
    model = (auto if type(config) in auto._model_mapping else AutoModel).from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, SPREAD)
    model.save_pretrained(folder)
    if kind in ("image-classification", "semantic-segmentation"):
        (folder / "preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    elif "audio" in kind or "speech" in kind:
        _save_ears(family, folder)
    else:
        save_tokenizer(folder)


def _config(family: str) -> PretrainedConfig:
    """A configuration of small sizes, each by the names that the family has for it."""
    if family == "whisper":
        return _whisper()
    default = AutoConfig.for_model(family)
    names = {*default.to_dict(), *default.attribute_map}
    sizes = {name: size for name, size in SIZES.items() if name in names and isinstance(getattr(default, name), int)}
    sizes = {name: size for name, size in sizes.items() if default.attribute_map.get(name) not in sizes}
    ears = {name: value for name, value in EARS.items() if name in names} if "conv_stride" in names else {}
    return AutoConfig.for_model(family, **sizes | ears, pad_token_id=0)


def _whisper() -> PretrainedConfig:
    encoder = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_source_positions": 100}
    decoder = {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "max_target_positions": 40}
    marks = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 256, "decoder_start_token_id": 257}
    return transformers.WhisperConfig(
        vocab_size=261, d_model=16, num_mel_bins=16, suppress_tokens=[7], begin_suppress_tokens=[220, 256],
        **encoder, **decoder, **marks,
    )  # fmt: skip


def _save_ears(family: str, folder: Path) -> None:
    if family != "whisper":
        transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
        return
    transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    letters = [*bytes_to_unicode().values(), "<|endoftext|>", *WHISPER_MARKS]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer: Any = transformers.WhisperTokenizer
    tokenizer(vocab=vocabulary, merges=[], additional_special_tokens=WHISPER_MARKS).save_pretrained(folder)
