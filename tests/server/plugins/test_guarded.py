"""An aggregation of another package, whatever it does."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.plugins.guarded import GuardedAggregation
from server.plugins.packages import AGGREGATIONS, plugin
from shared.errors import SettingsError
from tests.support.plugins import write_package

LENGTH = 5
HONEST = """
import numpy as np

class Any:
    def __init__(self, length, state):
        self.sum, self.count, self.kept = np.zeros(length), 0, state
    def add(self, update):
        self.sum += update
        self.count += 1
    def result(self, current):
        return current + self.sum / self.count
"""
HOSTILE: dict[str, tuple[str, str]] = {
    "raises": ("def result(self, current): raise KeyError('lost')", "KeyError: 'lost'"),
    "asks Python to exit": ("def result(self, current): raise SystemExit(0)", "SystemExit"),
    "nothing": ("def result(self, current): pass", "floating-point numbers, not NoneType"),
    "a list": ("def result(self, current): return [0.0] * 5", "not list"),
    "whole numbers": ("def result(self, current): return np.zeros(5, int)", "not an array of int64"),
    "objects": ("def result(self, current): return np.array([None] * 5)", "not an array of object"),
    "another shape": ("def result(self, current): return np.zeros((5, 1))", r"not the shape \(5, 1\)"),
    "too long": ("def result(self, current): return np.zeros(6)", r"not the shape \(6,\)"),
    "NaN": ("def result(self, current): return current * np.nan", "finite, not nan"),
    "beyond float32": ("def result(self, current): return np.full(5, 1e39)", "finite, not inf"),
    "a huge state": ("def state(self): return {'a': np.zeros(6)}", "more numbers than the adapter's 5"),
    "many arrays": ("def state(self): return {f'a{i}': np.zeros(1) for i in range(17)}", "no more than 16 arrays"),
    "a path for a name": ("def state(self): return {'../a': np.zeros(1)}", "a plain name"),
    "an object for state": ("def state(self): return {'a': object()}", "not object"),
    "NaN in its state": ("def state(self): return {'a': np.array([np.nan])}", "finite, not nan"),
    "no state at all": ("def state(self): return 3", "TypeError"),
    "raises when added to": ("def add(self, update): raise ValueError('no')", "take an update, got ValueError: no"),
    "hangs": ("def result(self, current):\n        import time\n        time.sleep(60)", "within 0.3 seconds"),
}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    monkeypatch.syspath_prepend(tmp_path)

    def begin(method: str = "", kept: Any = None) -> GuardedAggregation:
        module = "plugin_" + re.sub(r"\W", "_", request.node.name)
        write_package(tmp_path, module, f"{HONEST}    {method}\n", aggregations="any=Any")
        return GuardedAggregation(plugin(AGGREGATIONS, "any"), LENGTH, kept or {}, longest_call_s=0.3)

    return begin


def test_where_a_plug_in_failed_is_shown_to_whoever_asks_for_more(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "server")
    with pytest.raises(SettingsError):
        start("def add(self, update): raise ValueError('no')").add(np.zeros(LENGTH, np.float32))
    (line,) = caplog.records
    assert line.levelname == "INFO" and line.exc_info is not None and "ValueError" in caplog.text


@pytest.mark.guarantee(
    "an aggregation of another package gives a finite adapter of the same length, or the run has failed with one "
    "sentence that names it."
)
@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_it_does_is_one_sentence_that_names_it(start: Any, what: str) -> None:
    method, reason = HOSTILE[what]
    aggregation, current = start(method), np.ones(LENGTH, np.float32)
    with pytest.raises(SettingsError, match=f"Expected the plug-in 'any' of plugin_.* 1.0 to .*{reason}") as failed:
        aggregation.add(np.ones(LENGTH, np.float32))
        aggregation.result(current)
    assert "federation.aggregation" in failed.value.hint and "\n" not in str(failed.value)
    assert aggregation.state == {} and current.tolist() == [1.0] * LENGTH


def test_what_it_makes_of_two_updates_comes_as_float32(start: Any) -> None:
    aggregation = start()
    for value in (1.0, 3.0):
        aggregation.add(np.full(LENGTH, value, np.float32))
    made = aggregation.result(np.ones(LENGTH, np.float32))
    assert made.dtype == np.float32 and made.tolist() == [3.0] * LENGTH and aggregation.state == {}


def test_it_changes_copies_alone(start: Any) -> None:
    spoil = "def result(self, current):\n        current[:] = 7\n        self.sum[:] = 9\n        return current"
    aggregation, current, update = start(spoil), np.ones(LENGTH, np.float32), np.ones(LENGTH, np.float32)
    aggregation.add(update)
    made = aggregation.result(current)
    aggregation._aggregation.sum[:] = 0
    assert current.tolist() == update.tolist() == [1.0] * LENGTH and made.tolist() == [7.0] * LENGTH


def test_it_begins_with_a_copy_of_what_it_kept(start: Any) -> None:
    kept = {"rounds": np.array([2.0])}
    aggregation = start("def state(self):\n        self.kept['rounds'] += 1\n        return self.kept", kept)
    aggregation.add(np.ones(LENGTH, np.float32))
    aggregation.result(np.ones(LENGTH, np.float32))
    assert kept["rounds"].tolist() == [2.0] and aggregation.state["rounds"].tolist() == [3.0]
