"""Frozen layers of language models are run once per record, and kept; of two stacks, those of the encoder."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.adapted_model.model import build
from shared.errors import SettingsError
from shared.study.declaration import Study

CHOICES = {"kind": "sequence-classification", "labels": ["a", "b"]}


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("gpt2", {"kind": "causal-lm"}),
        ("llama", {"kind": "causal-lm"}),
        ("qwen", {"kind": "causal-lm"}),
        ("gpt2", CHOICES),
        ("llama", CHOICES),
        ("bart", {"kind": "seq2seq"}),
        ("marian", {"kind": "seq2seq"}),
    ],
)
@pytest.mark.parametrize("method", ["ffa-lora", "dora"])
def test_layers_below_the_adapted_ones_are_kept(
    language_study: Callable[..., Study],
    check_cut: Callable[[Study], Any],
    worst_error: Callable[[Study], float],
    family: str,
    task: dict[str, Any],
    method: str,
) -> None:
    study = language_study(family, task, layers="last:1", method=method)
    check_cut(study)
    assert worst_error(study) < 1e-5


def test_a_model_with_a_shared_bias_is_not_cut(language_study: Callable[..., Study]) -> None:
    assert not build(language_study("t5", {"kind": "seq2seq"}, layers="last:1")).has_frozen_layers


def test_last_layers_of_stacks_of_unequal_depth_are_refused(
    language_study: Callable[..., Study],
) -> None:
    with pytest.raises(SettingsError, match="as many decoder layers as encoder layers"):
        build(language_study("shallow-bart", {"kind": "seq2seq"}, layers="last:1"))
