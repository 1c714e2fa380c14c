"""The line that a round leaves in the terminal."""

import math

import pytest
from rich.console import Console

from server.rounds.round import RoundRecord
from simulations.progress import TerminalProgress
from simulations.results.result import Quality, WorstSite

RECORD = RoundRecord(
    round=1,
    outcome="aggregated",
    asked=[1],
    accepted=[1],
    rejected=[],
    refused=[],
    missing=[],
    bytes_up_per_node=1,
    bytes_down_per_node=1,
    seconds={},
)


def line_of(metric: str, value: float, *, higher_is_better: bool) -> str:
    found = Quality(
        metric=metric,
        higher_is_better=higher_is_better,
        value=value,
        metrics={metric: value},
        per_site={"north": value},
        worst_site=WorstSite(site="north", value=value),
    )
    console = Console(width=100, record=True)
    with TerminalProgress(console) as progress:
        progress.arm("federated", rounds=3, done=0)
        progress.finished(RECORD, found.model_dump())
    return next(line for line in console.export_text().splitlines() if "round" in line).strip()


def test_a_phase_moves_by_its_steps() -> None:
    console = Console(width=100, record=True)
    with TerminalProgress(console) as progress:
        progress.phase("frozen layers", 8)
        progress.step()
    assert "8/8" in console.export_text()


@pytest.mark.parametrize(
    ("metric", "value", "higher_is_better", "said"),
    [
        ("accuracy", 0.79149, True, "accuracy 0.791  worst north 0.791"),
        ("macro_f1", 0.5, True, "macro F1 0.500  worst north 0.500"),
        ("perplexity", 23.456, False, "perplexity 23.5  worst north 23.5"),
        ("perplexity", math.inf, False, "perplexity inf  worst north inf"),
    ],
)
def test_a_round_says_the_main_metric(metric: str, value: float, higher_is_better: bool, said: str) -> None:
    assert line_of(metric, value, higher_is_better=higher_is_better) == f"federated: round   1  {said}"
