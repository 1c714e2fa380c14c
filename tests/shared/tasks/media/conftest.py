"""Tiny vision and speech models with random weights, and studies over them: every media kind is tested on these."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from PIL import Image
from transformers.convert_slow_tokenizer import bytes_to_unicode

from client.vault.training.gradient_probe import probe
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build, initial_adapter
from shared.privacy.noise_schedule import plan
from shared.protocol.messages import TrainReply, TrainTask
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SPREAD = {"initializer_range": 0.2}


def _vit() -> Any:
    return transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SMALL, **SPREAD))


def _deit() -> Any:
    return transformers.DeiTModel(transformers.DeiTConfig(image_size=16, patch_size=4, **SMALL, **SPREAD))


def _dinov2() -> Any:
    shape = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
    config = transformers.Dinov2Config(
        image_size=32, patch_size=4, mlp_ratio=2, layerscale_value=0.5, **shape, **SPREAD
    )
    return transformers.Dinov2Model(config)


def _swin() -> Any:
    shape = {
        "image_size": 16,
        "patch_size": 2,
        "window_size": 2,
        "embed_dim": 16,
        "depths": [2, 1],
        "num_heads": [2, 2],
    }
    return transformers.SwinModel(transformers.SwinConfig(**shape, **SPREAD))


def _segformer() -> Any:
    stages = {"hidden_sizes": [8, 16], "num_encoder_blocks": 2, "depths": [2, 1], "num_attention_heads": [1, 2]}
    patches = {"sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2]}
    return transformers.SegformerModel(transformers.SegformerConfig(**stages, **patches, **SPREAD))


def _wav2vec2(*, stable: bool = False) -> Any:
    ears = {"conv_dim": [16, 16], "conv_kernel": [16, 8], "conv_stride": [40, 20], "num_feat_extract_layers": 2}
    position = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    return transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(**ears, **position, **SMALL, **SPREAD, do_stable_layer_norm=stable)
    )


def _whisper() -> Any:
    encoder = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "max_source_positions": 100}
    decoder = {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "max_target_positions": 40}
    ids: dict[str, Any] = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 256, "decoder_start_token_id": 257}
    ids |= {"suppress_tokens": [7, 8], "begin_suppress_tokens": [220, 256]}
    config = transformers.WhisperConfig(
        vocab_size=261, d_model=32, num_mel_bins=16, init_std=0.2, **encoder, **decoder, **ids
    )
    return transformers.WhisperForConditionalGeneration(config)


def _senses(family: str, folder: Path) -> None:
    """What a model's folder tells of its inputs, where its configuration does not."""
    if family in ("segformer", "dinov2"):
        (folder / "preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    if family.startswith("wav2vec2"):
        transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    if family == "whisper":
        transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
        letters = [*bytes_to_unicode().values(), "<|endoftext|>", *WHISPER_MARKS]
        vocabulary = {letter: number for number, letter in enumerate(letters)}
        tokenizer = transformers.WhisperTokenizer(
            vocab=vocabulary, merges=[], additional_special_tokens=list(WHISPER_MARKS)
        )
        tokenizer.save_pretrained(folder)


WHISPER_MARKS = ("<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")
MEDIA_MODELS: dict[str, Callable[[], Any]] = {
    "vit": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "swin": _swin,
    "segformer": _segformer,
    "wav2vec2": _wav2vec2,
    "wav2vec2-stable": lambda: _wav2vec2(stable=True),
    "whisper": _whisper,
}
MediaModels = Callable[[str], Path]


@pytest.fixture(scope="session")
def media_model(tmp_path_factory: pytest.TempPathFactory) -> MediaModels:
    """The folder of a tiny model of a family, made at first use."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            MEDIA_MODELS[family]().save_pretrained(made[family])
            _senses(family, made[family])
        return made[family]

    return folder


@pytest.fixture
def media_study(media_model: MediaModels) -> Callable[..., Study]:
    """A study over a family; sections are given as keywords."""

    def make(family: str, **sections: dict[str, Any]) -> Study:
        declared: dict[str, Any] = {
            "study": {"name": "test"},
            "model": {"source": str(media_model(family))},
            "adapter": {"layers": "all", "rank": 2},
            "privacy": {"epsilon": 8.0, "sampling_rate": 0.5},
            "training": {"local_steps": 2},
            "federation": {"rounds": 2, "smallest_declared_size": 4},
        }
        for name, values in sections.items():
            declared[name] = declared.get(name, {}) | values
        method = declared["adapter"].get("method", "ffa-lora")
        declared["federation"]["aggregation"] = "fedit" if method in ("lora", "dora") else "ffa"
        return parse(Study, declared, where="test")

    return make


@pytest.fixture
def worst_error(device: torch.device) -> Callable[[Study], float]:
    """Runs the probe: per-example gradients against a loop over single records, and the coupling test."""

    def find(study: Study) -> float:
        model = build(study).to(device)
        records = model.kind.synthetic(model.config, (5, 7, 9), variant=0)
        activations = open_activations(model, records, device, folder=None, limit_bytes=0)
        trainer = PrivateTrainer(
            model,
            activations,
            plan(study.privacy, steps=4),
            divisor_size=1000,
            learning_rates=LearningRates(1.0, 1.0),
            micro_batch_tokens=256,
        )
        return probe(trainer, cache=None).worst

    return find


@pytest.fixture
def private_round() -> Callable[[Study, Records], TrainReply]:
    """One private round of one node."""

    def train(study: Study, records: Records) -> TrainReply:
        vault = RoundTrainer(
            study,
            build(study),
            records,
            declared_size=max(4, len(records)),
            randomness=lambda number: SeededRandomnessForSimulation(1, "arm", "site", number),
        )
        return vault.train(TrainTask(study.sha256, "run", 1, initial_adapter(study)))

    return train


@pytest.fixture(scope="session")
def png() -> Callable[[Any], bytes]:
    """Makes a PNG file of pixels."""

    def encode(pixels: Any) -> bytes:
        target = io.BytesIO()
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(target, "PNG")
        return target.getvalue()

    return encode


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    """Makes a WAV file of a tone."""

    def encode(hertz: float, *, seconds: float = 0.5, rate: int = 8000, channels: int = 1) -> bytes:
        samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
        target = io.BytesIO()
        soundfile.write(target, np.stack([samples] * channels, axis=1), rate, format="WAV", subtype="PCM_16")
        return target.getvalue()

    return encode
