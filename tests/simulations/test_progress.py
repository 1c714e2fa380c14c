"""The line that a round leaves in the terminal."""

import math
from dataclasses import replace
from typing import Any

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


def test_a_node_whose_update_is_not_used_is_named_in_a_sentence() -> None:
    entries: dict[str, Any] = {
        "rejected": [{"node": 2, "reason": "norm"}],
        "refused": [{"node": 1, "status": "lost"}],
        "missing": [3],
        "quiet": [4],
    }
    console = Console(width=200, record=True)
    with TerminalProgress(console) as progress:
        progress.arm("federated", rounds=3, done=0)
        progress.finished(replace(RECORD, **entries), None)
    text = console.export_text()
    for sentence in (
        "round 1: node 2 was rejected: its update is larger than noise and clipping can make it (norm).",
        "round 1: node 1 sent no update: it paid for this round and lost the update, by a crash for instance; it sits",
        "round 1: node 3 did not answer.",
        "round 1: node 4 is in doubt: its update was used, but is quieter than the noise it declares",
    ):
        assert sentence in text
    assert "{" not in text


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
