"""Models that could carry something from one record to the next: in training, after a restart, and in evaluations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from client.vault.training.evaluator import exact_histogram
from client.vault.training.round_trainer import RoundTrainer
from shared.adapted_model.model import build
from shared.base_models.load import SPARSE
from shared.private_evaluation.cells import STEPS
from shared.protocol.messages import EvaluationTask, Status, TrainTask
from shared.records.ragged import Records, ragged
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from tests.client.vault.training.test_canonical_batches import summed

RECORDS, LENGTH, BLOCK = 20, 90, 4
"""Texts that are longer than what BigBird with blocks of this size attends to in full: (5 + 2 x 1) x BLOCK."""


@pytest.fixture
def big_bird(tmp_path: Path, tiny_bert: Path) -> Path:
    """A BigBird as it is published, with attention in blocks."""
    torch.manual_seed(0)
    config = transformers.BigBirdConfig(
        vocab_size=80,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        initializer_range=0.6,
        block_size=BLOCK,
        num_random_blocks=1,
        max_position_embeddings=256,
    )
    assert config.attention_type == SPARSE
    transformers.BigBirdModel(config).save_pretrained(tmp_path / "base")
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def texts(*, with_a_short_one: bool) -> Records:
    drawn = np.random.default_rng(1)
    ids = [drawn.integers(5, 17, LENGTH + index % 5).tolist() for index in range(RECORDS)]
    ids = [*ids, [6, 7, 8]] if with_a_short_one else ids
    targets = [[index % 2] for index in range(len(ids))]
    return Records({"ids": ragged(ids, np.int32), "target": ragged(targets, np.int64)}, np.ones(len(ids), bool))


def site(study: Study, records: Records, verdicts: Path) -> RoundTrainer:
    randomness = lambda number: SeededRandomnessForSimulation(7, number)  # noqa: E731
    return RoundTrainer(
        study, build(study), records, declared_size=800, randomness=randomness, cache=verdicts, verdicts=verdicts
    )


@pytest.mark.parametrize("layers", ["all", "last:1"])
def test_a_short_text_changes_no_other_texts_gradient_after_a_restart(
    make_study: Callable[..., Study], big_bird: Path, tmp_path: Path, layers: str
) -> None:
    study = make_study(model={"source": str(big_bird)}, task={"max_length": 128}, adapter={"layers": layers})
    before = site(study, texts(with_a_short_one=False), tmp_path / "cache")
    assert before.refusal(TrainTask(study.sha256, "run", 1, before.model.start)) is None
    adapter = before.model.start + np.float32(0.3) * np.random.default_rng(0).standard_normal(
        before.dimension, dtype=np.float32
    )

    def sum_of(chosen: list[int], *, with_a_short_one: bool) -> Any:
        restarted = site(study, texts(with_a_short_one=with_a_short_one), tmp_path / "cache")
        assert restarted.refusal(TrainTask(study.sha256, "run", 1, restarted.model.start)) is None
        return np.asarray(summed(restarted.trainer(), adapter, chosen))

    others = list(range(RECORDS))
    alone = sum_of([RECORDS], with_a_short_one=True)
    together = sum_of([RECORDS, *others], with_a_short_one=True)
    assert alone.any()
    assert np.array_equal(together, sum_of(others, with_a_short_one=False) + alone)


def test_a_short_text_moves_counts_by_its_own_alone(make_study: Callable[..., Study], big_bird: Path) -> None:
    study = make_study(
        model={"source": str(big_bird)},
        task={"max_length": 128},
        adapter={"layers": "all"},
        evaluation={"epsilon": 1.0, "cells": "confusion"},
    )
    counted = []
    for with_a_short_one in (False, True):
        model, records = build(study), texts(with_a_short_one=with_a_short_one)
        if with_a_short_one:  # first, as a file may have it
            records = records.select(np.array([RECORDS, *range(RECORDS)]))
        drawn = np.random.default_rng(0).standard_normal(len(model.start), dtype=np.float32)
        model.load(model.start + np.float32(0.3) * drawn)
        counted.append(exact_histogram(study, model, records, np.zeros(len(records), np.int64)) / STEPS)
    moved = np.abs(counted[1] - counted[0])
    assert moved.sum() == 1


@pytest.mark.guarantee("a base model that keeps anything of a record for the next one neither trains nor evaluates.")
def test_a_base_model_that_keeps_anything_of_a_record_for_the_next_one_neither_trains_nor_evaluates(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(evaluation={"epsilon": 1.0})
    asks: tuple[Callable[[RoundTrainer], Status | None], ...] = (
        lambda one: one.refusal(TrainTask(study.sha256, "run", 1, one.model.start)),
        lambda one: one.evaluation_refusal(
            EvaluationTask(study.sha256, "run", study.evaluated_after[0], one.model.start)
        ),
    )
    for ask in asks:
        sound = site(study, texts(with_a_short_one=False), tmp_path / "verdicts")
        assert ask(sound) is None
        remembering = site(study, texts(with_a_short_one=False), tmp_path / "verdicts")
        remembering.model.base.register_forward_hook(_remember)
        assert [ask(remembering) for _ in range(2)] == [Status.REFUSED_EXACTNESS] * 2


def test_a_model_that_changes_at_its_first_record_alone_stays_refused(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study()
    flipping = site(study, texts(with_a_short_one=False), tmp_path / "verdicts")
    flipping.model.base.register_forward_hook(lambda module, _given, _answer: setattr(module, "seen", True))
    asked = TrainTask(study.sha256, "run", 1, flipping.model.start)
    assert [flipping.refusal(asked) for _ in range(3)] == [Status.REFUSED_EXACTNESS] * 3


def _remember(module: Any, _given: Any, answer: Any) -> Any:
    module.seen = getattr(module, "seen", 0) + 1
    return answer
