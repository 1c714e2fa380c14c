"""Decoders that classify: the mean of their states, and gradients that are each record's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from shared.adapted_model.model import build
from shared.protocol.messages import Status
from shared.study.declaration import Study
from shared.tasks.registry import task_kind

Studies = Callable[..., Study]
TASK = {"kind": "sequence-classification", "labels": ["no", "yes"]}
TEXTS = ["word1 good", "word2 bad word3 word4"]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
@pytest.mark.parametrize("adapter", [{}, {"method": "lora"}, {"layers": "last:1"}, {"method": "head-only"}])
def test_every_family_is_exact(
    language_study: Studies, worst_error: Callable[[Study], float], family: str, adapter: dict[str, str]
) -> None:
    assert worst_error(language_study(family, TASK, **adapter)) < 1e-5


@pytest.mark.parametrize("method", ["dora", "ia3"])
def test_adapters_that_are_not_linear_are_exact_too(
    language_study: Studies, worst_error: Callable[[Study], float], method: str
) -> None:
    assert worst_error(language_study("llama", TASK, method=method)) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_a_private_round_trains(language_study: Studies, private_round: Any, family: str) -> None:
    study = language_study(family, TASK, layers="last:1")
    rows = {"text": TEXTS * 30, "label": ["yes", "no"] * 30}
    encoded = task_kind(study.task).encode(rows, AutoTokenizer.from_pretrained(study.model.source))
    reply = private_round(study, encoded)
    assert reply.status is Status.TRAINED and np.abs(reply.update).max() > 0


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_states_are_those_of_the_plain_model(language_study: Studies, family: str) -> None:
    study = language_study(family, TASK)
    model, plain = build(study), AutoModel.from_pretrained(study.model.source).eval()
    batch = {"ids": torch.tensor([[8, 9, 10, 0]]), "mask": torch.tensor([[1, 1, 1, 0]])}
    alone = plain(input_ids=torch.tensor([[8, 9, 10]])).last_hidden_state
    torch.testing.assert_close(model.kind.run(model.base, batch)[:, :3], alone, atol=1e-5, rtol=1e-4)
