"""Look for good settings between bounds, by validation records: Optuna proposes, each proposal is a run of its own.

The same command proposes the same settings again, as long as their runs show the same: what is finished is read, so a
search that was stopped goes on, and more trials can be added.
"""

import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from shared.errors import SettingsError
from simulations.results.result import Result
from simulations.run_folder import alone_in
from simulations.sweeps.cells import Axis, Cell, cells_of
from simulations.sweeps.execution import Outcomes, attempt, check
from simulations.sweeps.order import VALIDATION, Order, best_on_held_out, tried_settings
from simulations.sweeps.outcome import Sweep

EXAMPLE = "--between training.learning_rate=0.5..20"
LOGARITHMIC = 10.0
"""From this ratio of its bounds on, a key is searched by its logarithm."""
DIGITS = 3
"""Of a proposed number: more would not be read, and make no difference."""


@dataclass(frozen=True)
class Range:
    """A key that is searched between two numbers; a whole one, if both are whole."""

    key: str
    low: float
    high: float
    integer: bool

    def propose(self, trial: Any) -> str:
        """Have Optuna propose a value, as TOML writes it."""
        logarithmic = self.low > 0 and self.high / self.low >= LOGARITHMIC
        if self.integer:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), log=logarithmic))
        return f"{trial.suggest_float(self.key, self.low, self.high, log=logarithmic):.{DIGITS}g}"


def read_range(text: str) -> Range:
    """Read a range as `--between` takes it.

    Raises:
        SettingsError: it is none.
    """
    key, _, bounds = text.partition("=")
    low, _, high = bounds.partition("..")
    try:
        numbers = float(low), float(high)
    except ValueError:
        numbers = math.nan, math.nan
    if not re.fullmatch(r"\s*[\w-]+(\.[\w-]+)+\s*", key) or not numbers[0] < numbers[1] < math.inf:
        raise SettingsError(f"Expected --between section.key=LOW..HIGH, got {text!r}.", hint=f"For example {EXAMPLE}")
    integer = all(re.fullmatch(r"\s*-?\d+\s*", one) for one in (low, high))
    return Range(key.strip(), *numbers, integer)


def search(
    order: Order,
    ranges: Sequence[Range],
    *,
    trials: int,
    done: Callable[[Cell, Result | str], None] = lambda _cell, _outcome: None,
) -> Sweep:
    """Try settings on validation records, then run the best one on the held-out ones.

    Args:
        order: what to run; its axes are seeds alone, over which a setting's quality is a mean.
        ranges: to search.
        trials: settings to try.
        done: told of each run that ended.

    Raises:
        SettingsError: optuna is not installed, or a range's bounds make no valid scenario; nothing was run then.
        RunError: a run of each setting failed, or another process works in the folder.
    """
    optuna, repeats = _optuna(), order.axes
    ends = tuple(Axis(one.key, (_written(one, one.low), _written(one, one.high))) for one in ranges)
    check(replace(order, axes=(*ends, *repeats)).jobs("validation", (VALIDATION,)))
    with alone_in(order.folder):
        tried = _tried(order, ranges, optuna, trials, done)
        shutil.rmtree(order.folder / "cache", ignore_errors=True)
        return best_on_held_out(order, tried_settings(tried, order.folder / "validation"), done)


def _tried(
    order: Order, ranges: Sequence[Range], optuna: Any, trials: int, done: Callable[[Cell, Result | str], None]
) -> Outcomes:
    """Run what Optuna proposes on validation records, and tell it what that showed."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    repeats, tried = order.axes, dict[Cell, Result | str]()
    for _ in range(trials):
        trial = study.ask()
        setting = tuple((one.key, one.propose(trial)) for one in ranges)
        cells = (
            [Cell(setting, cell.repeat) for cell in cells_of(repeats, order.changes)]
            if repeats
            else [Cell(setting, ())]
        )
        for job in order.jobs("validation", (VALIDATION,), cells=cells):
            if job.cell not in tried:
                tried[job.cell] = attempt(job)
                done(job.cell, tried[job.cell])
        shown = [one.final for one in map(tried.get, cells) if isinstance(one, Result)]
        if len(shown) < len(cells):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        loss = fmean(-one.value if one.higher_is_better else one.value for one in shown)
        study.tell(trial, loss if math.isfinite(loss) else math.inf)
    return Outcomes(tried)


def _written(one: Range, bound: float) -> str:
    return str(int(bound)) if one.integer else f"{bound:.{DIGITS}g}"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise SettingsError("Expected optuna, got none.", hint="pip install 'fedvault[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
