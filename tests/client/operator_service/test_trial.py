"""A trial runs apart from the vault: it ends with it, takes nothing with it, and says no word of a record."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from client.operator.finding import OUT_OF_MEMORY
from client.operator_service import trial
from client.operator_service.jobs import UNREADABLE
from shared.errors import DataError, ExactnessError, RunError
from tests.client.dashboard.conftest import CELL

NODE: Any = None


def run(monkeypatch: pytest.MonkeyPatch, program: str, stopping: Callable[[], bool] = lambda: False) -> Any:
    """Let a program stand for the trial's own process; returns its answer, and the stages that it named."""
    monkeypatch.setattr(trial, "_command", lambda *_: [sys.executable, "-S", "-c", program])
    stages = list[tuple[str, int]]()

    def on_stage(stage: str, done: int = 0, _total: int = 0) -> None:
        stages.append((stage, done))

    return trial.try_apart(Path("node.toml"), "r-1", "ward", on_stage, stopping), stages


def test_what_is_being_done_is_passed_on_and_then_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = """print('{"stage": "reading", "done": 1}\\n{"finding"', flush=True); print(': {}}')"""
    with pytest.raises(ValueError, match="Expecting"):
        run(monkeypatch, lines)
    said = """print('{"stage": "reading", "done": 1}\\n{"finding"', end='', flush=True); print(': {}}')"""
    assert run(monkeypatch, said) == ({"finding": {}}, [("reading", 1)])


def test_a_trial_that_the_system_ends_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="the system ended it") as ended:
        run(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.value.hint == OUT_OF_MEMORY


def test_a_trial_ends_with_the_vault_and_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOOK_EVERY_S", 0.01)
    began = time.monotonic()
    with pytest.raises(RunError, match="it is stopped"):
        run(monkeypatch, "import time; time.sleep(60)", stopping=lambda: True)
    monkeypatch.setattr(trial, "MOST_S", 0.1)
    with pytest.raises(RunError, match="Expected the trial to end within"):
        run(monkeypatch, "import time; time.sleep(60)")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DataError(f"Expected a number, got {CELL!r}."), UNREADABLE),
        (RuntimeError(f"index out of range: {CELL}"), UNREADABLE),
        (ValueError(CELL), UNREADABLE),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
        (ExactnessError("Expected each record's own gradient."), "each record's own"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_no_word_of_a_record_leaves_a_trial(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fails(*_: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(trial, "trial", fails)
    finding = trial.tried("x", lambda: trial.without_records(NODE, NODE))
    assert words in finding.saw and CELL not in finding.saw + finding.todo and not finding.ok
