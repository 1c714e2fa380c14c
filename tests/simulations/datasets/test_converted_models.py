"""Converted models against the graphs that they came from, where they are at hand; nothing is fetched here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

from shared.base_models.bundled import data_folder
from shared.base_models.load import load_base
from shared.base_models.locate import BaseModelFiles
from simulations.datasets import fetch as fetching
from tests.support.paths import ROOT
from tests.support.source_graphs import E5_TEXTS, RECORDED, T5_SOURCE, T5_TARGET, pixels, sample, scores


def at_hand(name: str) -> Path:
    """The folder of a bundled model; the test is skipped where nobody fetched it."""
    folder = fetching.find(name, ROOT / data_folder())
    if folder is None:
        pytest.skip(f"{name} is not here; fedvault-sim data fetch {name} brings it")
    return folder


def loaded(name: str, auto: Any) -> Any:
    """A model as a study loads it."""
    return load_base(BaseModelFiles(at_hand(name), "its weights are checked already"), auto)


def recorded(name: str) -> torch.Tensor:
    return torch.tensor(json.loads(RECORDED.read_text())[name])


def test_dinov2_small_computes_what_its_source_graph_computes() -> None:
    model = loaded("dinov2-small", AutoModel)
    with torch.no_grad():
        states = model(torch.from_numpy(pixels(224))).last_hidden_state
    torch.testing.assert_close(torch.from_numpy(sample(states.numpy())), recorded("dinov2-small"), rtol=0, atol=1e-3)


def test_flan_t5_small_computes_what_its_source_graph_computes() -> None:
    """The graph rounds the inputs of every linear layer to 8 bits; with the same rounding the scores are its own."""
    model = loaded("flan-t5-small", AutoModelForSeq2SeqLM)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _module, inputs: (in_256_steps(inputs[0]),))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([T5_SOURCE]), decoder_input_ids=torch.tensor([T5_TARGET])).logits
    torch.testing.assert_close(torch.from_numpy(scores(logits.numpy())), recorded("flan-t5-small"), rtol=0, atol=1e-3)


def in_256_steps(values: torch.Tensor) -> torch.Tensor:
    """Round to 256 steps between the smallest and the largest value, zero among them, as DynamicQuantizeLinear does."""
    lowest, highest = values.min().clamp(max=0), values.max().clamp(min=0)
    scale = (highest - lowest) / 255
    zero = (-lowest / scale).round().clamp(0, 255)
    return ((values / scale).round().add(zero).clamp(0, 255) - zero) * scale


def test_flan_t5_small_translates_a_sentence() -> None:
    model = loaded("flan-t5-small", AutoModelForSeq2SeqLM)
    tokenizer = AutoTokenizer.from_pretrained(at_hand("flan-t5-small"))
    asked = tokenizer("translate English to German: The house is wonderful.", return_tensors="pt")
    assert asked["input_ids"].tolist() == [list(T5_SOURCE)]
    answer = model.generate(**asked, max_new_tokens=12)[0]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "Das Haus ist wunderbar."
    assert not torch.equal(model.shared.weight, model.lm_head.weight), "its embedding is not its head"


def test_multilingual_e5_small_computes_what_its_source_program_computes() -> None:
    """The program rounds what every layer reads to 8 bits, which moves a number by less than 0.003 of a vector's 1."""
    model = loaded("multilingual-e5-small", AutoModel)
    tokenizer = AutoTokenizer.from_pretrained(at_hand("multilingual-e5-small"))
    for text, (tokens, *numbers) in zip(E5_TEXTS, recorded("multilingual-e5-small").tolist(), strict=True):
        asked = tokenizer(f"query: {text}", return_tensors="pt")
        assert asked["input_ids"].shape[1] == tokens, text
        with torch.no_grad():
            mean = model(**asked).last_hidden_state[0].mean(0)
        torch.testing.assert_close((mean / mean.norm())[::16], torch.tensor(numbers), rtol=0, atol=3e-3)


def test_multilingual_e5_small_finds_a_question_in_another_language() -> None:
    model = loaded("multilingual-e5-small", AutoModel)
    tokenizer = AutoTokenizer.from_pretrained(at_hand("multilingual-e5-small"))
    asked = tokenizer([f"query: {text}" for text in E5_TEXTS], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = model(**asked).last_hidden_state
    means = nn.functional.normalize((states * asked["attention_mask"].unsqueeze(-1)).sum(1), dim=-1)
    likeness = means[0] @ means.T
    assert int(likeness[1:].argmax()) == 0 and likeness[1] > 0.85, "German for the English question"
