"""Metrics as people read them."""

import math

import pytest

from simulations.results.metric_names import heading, is_share, shown, words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.79149, "0.791"),
        (1.0, "1.000"),
        (-0.25, "-0.250"),
        (0.00042, "4.2e-04"),
        (9.87654, "9.877"),
        (23.456, "23.5"),
        (1234.5, "1234"),
        (3.2e8, "3.20e+08"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_a_value_has_the_digits_it_deserves(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("metric", "text"),
    [("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("wer", "WER"), ("mean_iou", "mean IoU")],
)
def test_a_metrics_name_reads_as_words(metric: str, text: str) -> None:
    assert words(metric) == text


def test_a_heading_says_the_direction_that_readers_do_not_expect() -> None:
    assert heading("macro_f1", "by site") == "Macro F1 by site"
    assert heading("wer", "by site", higher_is_better=False) == "WER by site (lower is better)"


def test_only_a_share_of_what_could_be_reached_is_one() -> None:
    assert is_share([0.0, 0.5, 1.0], higher_is_better=True)
    for others in ([0.5, 1.5], [-0.1, 0.5], [0.5, math.nan]):
        assert not is_share(others, higher_is_better=True)
    assert not is_share([0.01, 0.02], higher_is_better=False)
