"""Counts over held-out records: each unit for itself, and noise on every cell, neither too little nor too much."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from client.vault.training.evaluator import exact_histogram, noisy_histogram
from client.vault.training.randomness import KeyStream, OsRandomness
from shared.adapted_model.model import build
from shared.errors import RunError
from shared.privacy.releases import NoisyCounts
from shared.private_evaluation.cells import STEPS, Cells
from shared.private_evaluation.noise import noise_scale
from shared.records.batches import collate
from shared.records.ragged import Records, with_units
from shared.study.declaration import Study

FALSE_ALARM = 1e-6
DRAWS = 40_000
Make = Callable[..., Study]


def p_value(noise: np.ndarray, scale: float) -> float:
    """Chi-square of 40 bins of equal probability of the exact law, summed number by number; the tails in the last."""
    numbers = np.arange(-math.ceil(12 * scale) - 2, math.ceil(12 * scale) + 3)
    chances = np.exp(-(numbers**2) / (2 * scale**2))
    below = np.cumsum(chances) / chances.sum()
    ends = numbers[np.searchsorted(below, np.arange(1, 40) / 40)]
    places = np.searchsorted(ends, noise, side="left")
    expected = np.bincount(np.searchsorted(ends, numbers, side="left"), weights=chances, minlength=40) / chances.sum()
    return float(stats.chisquare(np.bincount(places, minlength=40), len(noise) * expected).pvalue)


@pytest.mark.parametrize("sigma", [0.7, 3.73])
@pytest.mark.guarantee(
    "every count gets its own discrete Gaussian noise of exactly the scale that was charged, empty cells too."
)
def test_the_noise_of_a_histogram_is_that_of_its_release_and_of_no_other(sigma: float, monkeypatch: Any) -> None:
    coarse = 2**8  # so that every number can be counted; the same code draws on the real grid below
    monkeypatch.setattr("shared.private_evaluation.noise.STEPS", coarse)
    release, exact = NoisyCounts(sigma, 1), np.full(DRAWS, 17 * coarse, np.int64)
    exact[::2] = 0
    noise = noisy_histogram(exact, release, OsRandomness().step()) - exact
    assert noise_scale(release) == sigma * coarse
    assert p_value(noise, sigma * coarse) > FALSE_ALARM
    for too in (2 / 3, 0.95, 1.05, 3 / 2):
        assert p_value(noise, too * sigma * coarse) < FALSE_ALARM, f"noise of {too} times the scale is told apart"
    for half in (noise[::2], noise[1::2]):
        assert p_value(half, sigma * coarse) > FALSE_ALARM, "empty cells have it as full ones"
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 6 / math.sqrt(DRAWS), "each has its own"


def test_on_the_real_grid_too_little_and_too_much_noise_are_told_apart() -> None:
    release = NoisyCounts(2.0, 1)
    noise = noisy_histogram(np.zeros(DRAWS, np.int64), release, OsRandomness().step()) / (2.0 * STEPS)
    low, high = stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], DRAWS)
    squares = float((noise**2).sum())
    assert low < squares < high
    assert not low < squares * (2 / 3) ** 2 < high and not low < squares * (3 / 2) ** 2 < high
    assert stats.kstest(noise, "norm").pvalue > FALSE_ALARM


def test_the_noise_of_an_evaluation_comes_from_a_key_that_is_used_once() -> None:
    release, zeros, key = NoisyCounts(2.0, 1), np.zeros(5, np.int64), KeyStream(os.urandom(32))
    noisy_histogram(zeros, release, key)
    with pytest.raises(Exception, match="read once"):
        noisy_histogram(zeros, release, key)


@pytest.fixture
def setting(make_study: Make, records_of: Callable[..., Records]) -> tuple[Study, Any, Records]:
    study = make_study(
        evaluation={"epsilon": 1.0, "cells": "confusion", "subgroup": {"column": "sex", "values": ["f", "m"]}}
    )
    torch.manual_seed(0)
    model = build(study)
    model.load(model.start + np.random.default_rng(1).normal(0, 0.5, len(model.start)).astype(np.float32))
    rng = np.random.default_rng(2)
    ids = [rng.integers(5, 40, rng.integers(2, 20)).tolist() for _ in range(24)]
    records = records_of(ids, [number % 2 for number in range(23)] + [-1])
    with torch.no_grad():  # so that it predicts either label about as often
        outputs = [model.outputs(batch_of(model, records, index))[0] for index in range(23)]
        bias = dict(model.named_parameters())["head.bias"]
        bias[1] -= torch.stack([row[1] - row[0] for row in outputs]).median()
    return study, model, records


def batch_of(model: Any, records: Records, index: int) -> Any:
    return collate(records, [index], model.kind.fills, torch.device("cpu"))


GROUPS = np.arange(24) % 3


def test_the_exact_counts_are_those_of_a_naive_loop(setting: tuple[Study, Any, Records]) -> None:
    study, model, records = setting
    exact = exact_histogram(study, model, records, GROUPS)
    table = np.zeros((3, 2, 2), np.int64)
    for index in range(23):
        with torch.no_grad():
            guess = int(model.outputs(batch_of(model, records, index)).argmax())
        table[GROUPS[index], int(records["target"][index][0]), guess] += STEPS
    assert (exact.reshape(3, 2, 2) == table).all() and exact.sum() == 23 * STEPS
    assert (table.sum(0) > 0).sum() >= 3, "some are right, and some are wrong"


@pytest.mark.guarantee("a held-out unit changes nothing but its own share of the counts, whoever else is held out.")
@pytest.mark.parametrize("units", [None, np.arange(24) // 3])
def test_taking_a_unit_away_takes_away_its_own_share(
    units: np.ndarray | None, setting: tuple[Study, Any, Records]
) -> None:
    study, model, records = setting
    records = records if units is None else with_units(records, units)
    whole, owners = exact_histogram(study, model, records, GROUPS), np.arange(24) if units is None else units
    for unit in (0, 3, 7):
        kept, own = np.flatnonzero(owners != unit), np.flatnonzero(owners == unit)
        rest, alone = (
            exact_histogram(study, model, with_units(records.select(rows), _from_0(owners[rows])), GROUPS[rows])
            for rows in (kept, own)
        )
        assert (whole - rest == alone).all() and alone.sum() <= STEPS and (alone >= 0).all()


def _from_0(owners: np.ndarray) -> np.ndarray:
    return np.unique(owners, return_inverse=True)[1].astype(np.int64)


def test_a_record_that_makes_the_model_raise_counts_nothing_and_changes_nobody(
    setting: tuple[Study, Any, Records], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study, model, records = setting
    others = np.array([row for row in range(24) if row != 4])
    without = exact_histogram(study, model, records.select(others), GROUPS[others])
    honest = model.outputs

    def outputs(batch: Any) -> Any:
        if (
            torch.equal(batch["target"], torch.from_numpy(records["target"][4])[None])
            and batch["ids"].shape[1] == -(-len(records["ids"][4]) // 8) * 8
            and batch["ids"][0, 0] == int(records["ids"][4][0])
        ):
            raise RuntimeError("patient Anna")
        return honest(batch)

    monkeypatch.setattr(model, "outputs", outputs)
    assert (exact_histogram(study, model, records, GROUPS) == without).all()
    assert "1 held-out records made the model raise" in caplog.text and "Anna" not in caplog.text


@pytest.mark.parametrize(
    "of_the_machine",
    [MemoryError("full"), OSError("disk"), torch.OutOfMemoryError("full"), RuntimeError("CUDA error: device-side")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.guarantee("what memory, a disk or a device lacks takes no record away: it ends the evaluation as a whole.")
def test_a_machine_that_gives_out_takes_nobody_out_of_the_counts(
    of_the_machine: Exception, setting: tuple[Study, Any, Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, model, records = setting
    honest, asked = model.outputs, list[int]()

    def outputs(batch: Any) -> Any:  # a long record filled the memory, or ended the device: all after it pay
        asked.append(1)
        if len(asked) > 4:
            raise of_the_machine
        return honest(batch)

    monkeypatch.setattr(model, "outputs", outputs)
    with pytest.raises(type(of_the_machine)):
        exact_histogram(study, model, records, GROUPS)


def test_whoever_ends_it_ends_it(setting: tuple[Study, Any, Records]) -> None:
    study, model, records = setting

    def end() -> None:
        raise RunError("ended")

    with pytest.raises(RunError, match="ended"):
        exact_histogram(study, model, records, GROUPS, on_record=end)


def test_an_empty_held_out_side_counts_nothing(setting: tuple[Study, Any, Records]) -> None:
    study, model, records = setting
    nobody = records.select(np.zeros(0, np.int64))
    exact = exact_histogram(study, model, nobody, np.zeros(0, np.int64))
    assert exact.tolist() == [0] * Cells.of(study).length
