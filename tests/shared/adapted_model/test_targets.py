"""The layers that a family is adapted at, whose names decide what is sent: read off models without weights."""

import warnings
from typing import Any

import pytest
import torch
import transformers
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TABLE
from torch import nn

from shared.adapted_model.adapters import attach
from shared.adapted_model.targets import targets_of
from shared.errors import SettingsError
from shared.study.sections import Adapter

EARLIER = {
    "albert": ("query", "value"),
    "deit": ("q_proj", "v_proj"),
    "dinov2": ("q_proj", "v_proj"),
    "distilbert": ("q_lin", "v_lin"),
    "marian": ("q_proj", "v_proj"),
    "mpnet": ("q", "v"),
    "segformer": ("q_proj", "v_proj"),
    "swin": ("q_proj", "v_proj"),
    "vit": ("q_proj", "v_proj"),
    "wav2vec2": ("q_proj", "v_proj"),
    "whisper": ("q_proj", "v_proj"),
    **{name: tuple(targets) for name, targets in PEFT_TABLE.items() if not isinstance(targets, str)},
}
"""What tables said for each family before there was a rule."""
ELSEWHERE = {"RefinedWeb", "RefinedWebModel", "btlm", "chatglm", "rwkv7"}
"""Families of PEFT's table that come with code of their own, which is never run."""
NEW = {
    "audio-spectrogram-transformer": ("q_proj", "v_proj"),
    "beit": ("q_proj", "v_proj"),
    "big_bird": ("query", "value"),
    "camembert": ("query", "value"),
    "clip_vision_model": ("q_proj", "v_proj"),
    "dinov2_with_registers": ("q_proj", "v_proj"),
    "dinov3_vit": ("q_proj", "v_proj"),
    "eurobert": ("q_proj", "v_proj"),
    "granite": ("q_proj", "v_proj"),
    "hubert": ("q_proj", "v_proj"),
    "longt5": ("q", "v"),
    "mbart": ("q_proj", "v_proj"),
    "modernbert": ("Wqkv",),
    "moonshine": ("q_proj", "v_proj"),
    "nomic_bert": ("q_proj", "v_proj"),
    "olmo2": ("q_proj", "v_proj"),
    "pegasus": ("q_proj", "v_proj"),
    "phi3": ("qkv_proj",),
    "rembert": ("query", "value"),
    "siglip_vision_model": ("q_proj", "v_proj"),
    "smollm3": ("q_proj", "v_proj"),
    "swinv2": ("query", "value"),
    "wavlm": ("q_proj", "v_proj"),
    "xlm": ("q_lin", "v_lin"),
    "yolos": ("query", "value"),
}
FEW = dict.fromkeys(
    (
        "num_hidden_layers",
        "num_layers",
        "num_decoder_layers",
        "encoder_layers",
        "decoder_layers",
        "n_layer",
        "n_layers",
    ),
    2,
)


def without_weights(kind: str) -> Any:
    """A family's model of two layers and default sizes, without weights."""
    config = transformers.AutoConfig.for_model(kind)
    for part in (config, *(getattr(config, name, None) for name in ("text_config", "vision_config", "qformer_config"))):
        for name, count in FEW.items():
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, count)
        if isinstance(getattr(part, "layer_types", None), list):
            part.layer_types = part.layer_types[:2]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModel.from_config(config)


@pytest.mark.parametrize("kind", sorted(EARLIER.keys() - ELSEWHERE))
def test_a_family_of_the_earlier_tables_is_adapted_where_it_always_was(kind: str) -> None:
    assert set(targets_of(without_weights(kind), Adapter())) == set(EARLIER[kind])


@pytest.mark.parametrize("kind", NEW)
def test_a_new_family_is_adapted_at_query_and_value_without_an_entry_anywhere(kind: str) -> None:
    assert targets_of(without_weights(kind), Adapter()) == list(NEW[kind])


@pytest.mark.parametrize("kind", ["fnet", "convnext"])
def test_a_model_without_attention_is_refused(kind: str) -> None:
    with pytest.raises(SettingsError, match=f"named as query and value, got '{kind}'") as refusal:
        targets_of(without_weights(kind), Adapter())
    assert "adapter.target_modules" in refusal.value.hint


def test_layers_elsewhere_that_bear_the_same_names_are_left_alone() -> None:
    bert = without_weights("bert")
    bert.memory = nn.ModuleDict({"value": nn.Linear(768, 768, device="meta")})
    targets = targets_of(bert, Adapter())
    assert len(targets) == 4 and all(".attention.self." in path for path in targets)
    adapted = attach(bert, Adapter(layers="last:1"), None)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 and all(".encoder.layer.1.attention.self." in name for name in trained)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"target_modules": ("q_proj", "typo")}, "adapter.target_modules to name layers of the model, got 'typo'"),
        ({"rank_pattern": {"layer.7.*query": 2}}, "adapter.rank_pattern to name layers of the model, got 'layer.7"),
        (
            {"target_modules": ("q_proj", "lm_head")},
            "without the language head, whose weights are the model's embeddings",
        ),
    ],
)
def test_a_name_that_no_layer_has_and_a_head_that_is_the_embeddings_are_refused(
    adapter: dict[str, Any], message: str
) -> None:
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=20,
        tie_word_embeddings=True,
    )  # fmt: skip
    with pytest.raises(SettingsError, match=message) as refusal:
        attach(transformers.LlamaForCausalLM(config), Adapter(layers="all", rank=2, **adapter), None)
    assert refusal.value.hint
