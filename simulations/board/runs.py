"""Read the runs that a board shows: every result below some folders, and those of them that a filter leaves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import SettingsError
from simulations.experiment.scenario import parse_value
from simulations.results.report import OURS, report_of
from simulations.results.result import Result, read_result
from simulations.run_identity.seeds import SEED_KEYS, RunSeeds, seeds_of
from simulations.run_identity.settings import deciding

RESULT = "result.json"
LARGEST = 1e100
"""Beyond it two figures of different signs are too far apart for a drawing."""
DEEPEST = 3
"""Folders below a named one in which results are looked for."""


@dataclass(frozen=True)
class BoardRun:
    """One finished run."""

    name: str
    """Its folder, as short as it stays unique."""
    result: Result
    settings: Mapping[str, Any]
    """Every key of its scenario, as `privacy.epsilon`, without those that change no figure."""

    @property
    def seeds(self) -> RunSeeds:
        """What its noise, batches and splits were drawn from."""
        return seeds_of(self.result.scenario)


class ReadRuns(NamedTuple):
    """What lies in the folders."""

    runs: list[BoardRun]
    unreadable: list[str]
    """A sentence on each result that cannot be read."""


def read_runs(folders: Sequence[Path]) -> ReadRuns:
    """Read every result in some folders and up to three folders below them.

    Raises:
        SettingsError: there is none that can be read.
    """
    paths = list(dict.fromkeys(path.resolve() for folder in folders for path in sorted(_results(folder))))
    runs, unreadable = list[BoardRun](), list[str]()
    for path in paths:
        try:
            result = read_result(path)
        except SettingsError as error:
            unreadable.append(str(error))
            continue
        if why := _unfit(result):
            unreadable.append(f"Expected a result that can be shown, got {path}: {why}.")
            continue
        runs.append(BoardRun(_short(path.parent, paths), result, settings_of(result.scenario)))
    if not runs:
        raise SettingsError(
            f"Expected a finished run below {', '.join(map(str, folders))}, got none.",
            hint=unreadable[0] if unreadable else "fedvault-sim run SCENARIO --out runs/first",
        )
    return ReadRuns(runs, unreadable)


def parse_filter(changes: Sequence[str]) -> dict[str, Any]:
    """Read `section.key=value`, as `--set` takes it; a value that is no TOML is a text.

    Raises:
        SettingsError: one has no key or no value.
    """
    wanted = dict[str, Any]()
    for change in changes:
        key, equals, value = change.partition("=")
        if not (key and equals and value):
            raise SettingsError(f"Expected section.key=value, got --where {change!r}.")
        wanted[key.strip()] = parse_value(value)
    return wanted


def matching(runs: Sequence[BoardRun], wanted: Mapping[str, Any]) -> list[BoardRun]:
    """Return the runs whose scenario has each of these values."""
    return [run for run in runs if all(run.settings.get(key) == value for key, value in wanted.items())]


def settings_of(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a scenario by their whole key, without those that change no figure."""
    return _flat(deciding(scenario))


def differing(runs: Sequence[BoardRun]) -> dict[str, list[Any]]:
    """Return each setting that is not the same in all runs, with its values in order, seeds left out."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: _unique(run.settings.get(key) for run in runs) for key in keys if not key.startswith(SEED_KEYS)}
    return {key: sorted(each, key=_order) for key, each in values.items() if len(each) > 1}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    settings = dict[str, Any]()
    for key, value in values.items():
        name = f"{before}{key}"
        settings |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return settings


def _unique(values: Iterator[Any]) -> list[Any]:
    unique = list[Any]()
    for value in values:
        if value not in unique:
            unique.append(value)
    return unique


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def _unfit(result: Result) -> str:
    """Return why a result of the right shape cannot be shown; somebody else may have written it."""
    named = {key: value for key, value in settings_of(result.scenario).items() if key.startswith(SEED_KEYS)}
    seeds = [value for key, value in named.items() if value is not None or key == SEED_KEYS]  # one apart may be none
    if any(type(seed) is not int for seed in seeds):
        return "its seed is no whole number"
    if OURS not in result.arms or not result.privacy:
        return "it has no arm or no site of its study"
    spent = [site.epsilon_rdp for site in result.privacy.values()]
    spent += [arm.epsilon for arm in result.arms.values() if arm.epsilon is not None]
    if not all(map(math.isfinite, spent)) or any(map(_too_large, _numbers(result.model_dump()))):
        return "a figure in it is beyond what can be drawn"
    try:
        report_of([result])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return f"there is no report of it ({type(error).__name__})"
    return ""


def _too_large(value: float) -> bool:
    return math.isfinite(value) and abs(value) > LARGEST


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, float):
        yield value


def _results(folder: Path) -> Iterator[Path]:
    for depth in range(DEEPEST + 1):
        yield from folder.glob("*/" * depth + RESULT)


def _short(folder: Path, paths: Sequence[Path]) -> str:
    """Return the end of a folder's path that no other result's folder has."""
    others = [path.parent for path in paths if path.parent != folder]
    for count in range(1, len(folder.parts)):
        end = folder.parts[-count:]
        if not any(other.parts[-count:] == end for other in others):
            return "/".join(end)
    return str(folder)
