"""The runs of a sweep, one for each combination of values. Pure, no IO."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.errors import SettingsError
from simulations.run_identity.seeds import SEED_KEYS, SHARED

EXAMPLE = "--over privacy.epsilon=1,3,8 --over simulation.seed=1..5"
MOST_CELLS = 10_000


@dataclass(frozen=True)
class Axis:
    """A key that takes several values."""

    key: str
    values: tuple[str, ...]
    """Each as TOML writes it, or as bare text."""

    @property
    def repeats(self) -> bool:
        """Return whether its values repeat a setting: a seed's do."""
        return self.key.startswith(SEED_KEYS)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    setting: tuple[tuple[str, str], ...]
    """Values of the axes that are no seeds, by key."""
    repeat: tuple[tuple[str, str], ...]
    """Values of those that are."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Write its values as `--set` takes them."""
        return tuple(f"{key}={value}" for key, value in (*self.setting, *self.repeat))

    @property
    def folder(self) -> str:
        """Name its folder: readable, and another one for every combination of values."""
        written = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in (*self.setting, *self.repeat))
        readable = re.sub(r"[^A-Za-z0-9=.,-]+", "-", written)[:60].strip("-.,")
        return f"{readable}-{hashlib.sha256(repr(self.changes).encode()).hexdigest()[:8]}"


def read_axis(text: str) -> Axis:
    """Read an axis as `--over` takes it: values between commas, or whole numbers from a first to a last.

    Raises:
        SettingsError: it is no axis, or has a value twice.
    """
    key, equals, listed = text.partition("=")
    key, listed = key.strip(), listed.strip()
    if not equals or not listed or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", key):
        raise SettingsError(f"Expected --over section.key=VALUE,VALUE,…, got {text!r}.", hint=f"For example {EXAMPLE}")
    if numbers := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", listed):
        first, last = map(int, numbers.groups())
        if not 0 <= last - first < MOST_CELLS:
            raise SettingsError(f"Expected --over {key}=FIRST..LAST that counts up, got {listed!r}.")
        return axis_of(key, map(str, range(first, last + 1)))
    return axis_of(key, _between_commas(listed))


def axis_of(key: str, values: Iterable[str]) -> Axis:
    """Return an axis of values that differ.

    Raises:
        SettingsError: there is no value, or an empty one, or one that comes twice.
    """
    known = tuple(value.strip() for value in values)
    if not known or "" in known or len(set(known)) < len(known):
        raise SettingsError(f"Expected different values for --over {key}, got {', '.join(known) or 'none'}.")
    return Axis(key, known)


def cells_of(axes: Sequence[Axis], changes: Sequence[str] = ()) -> list[Cell]:
    """Combine all values of all axes; the last axis varies fastest.

    Raises:
        SettingsError: there is no axis, a key comes twice, seeds are crossed, or there are too many combinations.
    """
    keys = [*(axis.key for axis in axes), *(change.partition("=")[0].strip() for change in changes)]
    twice = sorted({axis.key for axis in axes if keys.count(axis.key) > 1})
    if twice:
        raise SettingsError(f"Expected each key once in --over and --set, got {twice[0]} twice.")
    if not axes:
        raise SettingsError("Expected at least one --over, got none.", hint=f"For example {EXAMPLE}")
    repeats = [axis.key for axis in axes if axis.repeats and len(axis.values) > 1]
    if len(repeats) > 1:
        raise SettingsError(
            f"Expected one key of seeds in a sweep, got {' and '.join(repeats)}: {SHARED}.",
            hint="Sweep over one of them and --set the other, or make a sweep of each.",
        )
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST_CELLS:
        raise SettingsError(f"Expected at most {MOST_CELLS:,} runs in a sweep, got {count:,}.")
    made = []
    for values in itertools.product(*(axis.values for axis in axes)):
        chosen = list(zip(axes, values, strict=True))
        setting = tuple((axis.key, value) for axis, value in chosen if not axis.repeats)
        made.append(Cell(setting, tuple((axis.key, value) for axis, value in chosen if axis.repeats)))
    return made


def named(setting: Iterable[tuple[str, str]]) -> str:
    """Write a setting by the last parts of its keys: `epsilon=1 rank=4`."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in setting) or "as declared"


def _between_commas(listed: str) -> list[str]:
    """Cut at commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for character in listed:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts
