"""Tiny random language models of every family, with a word-level tokenizer, and what every kind must show of itself."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from client.vault.training.gradient_probe import probe
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import AdaptedModel, build, initial_adapter
from shared.privacy.noise_schedule import plan
from shared.protocol.messages import TrainReply, TrainTask
from shared.records.ragged import Encoded
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

WORDS = [f"word{i}" for i in range(50)] + ["good", "bad", "yes", "no", "eins", "zwei"]
MARKS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
CHAT = (
    "{% for m in messages %}<turn> {{ m['role'] }} \n {{ m['content'] }} </s>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn> assistant \n {% endif %}"
)
VOCABULARY = ["<pad>", "<unk>", "<s>", "</s>", "<turn>", "user", "assistant", "\n", *WORDS]
SIZE = len(VOCABULARY)
PAD, START, END = 0, 2, 3
SMALL: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": START,
    "eos_token_id": END,
    "pad_token_id": PAD,
}
BOTH_WAYS: dict[str, Any] = {
    "vocab_size": SIZE,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "init_std": 0.2,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
    "forced_eos_token_id": None,
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=SIZE, n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.2,
            bos_token_id=START, eos_token_id=END, pad_token_id=PAD,
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "qwen": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL)),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=SIZE, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, dropout_rate=0.1,
            pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD,
        )
    ),
    "bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(**BOTH_WAYS, decoder_start_token_id=END)
    ),
    "shallow-bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(**BOTH_WAYS | {"decoder_layers": 1}, decoder_start_token_id=END)
    ),
    "marian": lambda: transformers.MarianMTModel(transformers.MarianConfig(**BOTH_WAYS, decoder_start_token_id=PAD)),
}  # fmt: skip


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a tiny random model of a family and its tokenizer; made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            torch.manual_seed(0)
            made[family] = tmp_path_factory.mktemp(family)
            FAMILIES[family]().save_pretrained(made[family])
            word_tokenizer().save_pretrained(made[family])
        return made[family]

    return folder


def word_tokenizer() -> Any:
    """One token per word; no marks but the ones that are asked for, as GPT-2 does it."""
    level = tokenizers.models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="<unk>")  # noqa: S106
    plain = tokenizers.Tokenizer(level)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    plain.normalizer = tokenizers.normalizers.Replace("\n", " \n ")
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, model_input_names=["input_ids", "attention_mask"], **MARKS
    )
    made.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    made.chat_template = CHAT
    return made


@pytest.fixture
def language_study(language_model: Callable[[str], Path]) -> Callable[..., Study]:
    """A study over a tiny model of a family."""

    def make(family: str, task: dict[str, Any], **adapter: Any) -> Study:
        linear = adapter.get("method", "ffa-lora") not in ("lora", "dora")
        declared = {
            "study": {"name": "test"},
            "model": {"source": str(language_model(family))},
            "task": {"max_length": 24} | task,
            "adapter": {"rank": 4, "layers": "all"} | adapter,
            "privacy": {"epsilon": 8.0},
            "federation": {
                "rounds": 2,
                "smallest_declared_size": 10,
                "aggregation": "ffa" if linear else "fedit",
            },
            "training": {"local_steps": 2},
        }
        return parse(Study, declared, where="test")

    return make


@pytest.fixture
def worst_error(device: torch.device) -> Iterator[Callable[[Study], float]]:
    """Probes a study's model and adapter, and returns the worst relative error of any gradient."""

    def measure(study: Study) -> float:
        model = build(study).to(device)
        records = model.kind.synthetic(model.config, [5, 6], variant=0)
        activations = open_activations(model, records, device, folder=None, limit_bytes=0)
        planned, rates = plan(study.privacy, steps=4), LearningRates(1.0, 1.0)
        trainer = PrivateTrainer(
            model, activations, planned, divisor_size=600, learning_rates=rates, micro_batch_tokens=512
        )
        return probe(trainer, cache=None).worst

    yield measure


@pytest.fixture
def private_round() -> Callable[[Study, Encoded], TrainReply]:
    """One private round of a node that holds these records."""

    def train(study: Study, encoded: Encoded) -> TrainReply:
        vault = RoundTrainer(
            study,
            build(study),
            encoded.records,
            declared_size=60,
            randomness=lambda number: SeededRandomnessForSimulation(1, number),
        )
        return vault.train(TrainTask(study.sha256, "run", 1, initial_adapter(study)))

    return train


@pytest.fixture
def randomised() -> Callable[[Study], AdaptedModel]:
    """The study's model with an adapter that changes something."""

    def make(study: Study) -> AdaptedModel:
        model = build(study)
        drawn = np.random.default_rng(3).standard_normal(model.layout.length)
        model.load((0.3 * drawn).astype(np.float32))
        return model

    return make
