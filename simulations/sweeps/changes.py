"""Changes and values as Python holds them, written as the commands' `--set` and `--over` take them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from shared.errors import SettingsError

Changes = Mapping[str, Any] | Sequence[str]
"""By key, as in {"privacy.epsilon": 1}, or as `--set` takes them, as in ["privacy.epsilon=1"]."""


def as_options(changes: Changes) -> tuple[str, ...]:
    """Write changes as `--set` takes them.

    Raises:
        SettingsError: they have another shape, or a value that TOML cannot hold.
    """
    if isinstance(changes, Mapping):
        return tuple(f"{key}={as_toml(value)}" for key, value in changes.items())
    if isinstance(changes, Sequence) and not isinstance(changes, str) and all(isinstance(one, str) for one in changes):
        return tuple(changes)
    raise SettingsError(
        f"Expected changes by key or a list of key=value, got {changes!r}.",
        hint='Write {"privacy.epsilon": 1} or ["privacy.epsilon=1"].',
    )


def values_by_key(over: Mapping[str, Iterable[Any]]) -> dict[str, list[str]]:
    """Write the values that each key takes in a sweep as TOML does.

    Raises:
        SettingsError: they have another shape, or a value that TOML cannot hold.
    """
    if isinstance(over, Mapping) and all(_is_several(values) for values in over.values()):
        return {str(key): [as_toml(value) for value in values] for key, values in over.items()}
    raise SettingsError(
        f"Expected a list of values for each key, got {over!r}.", hint='Write {"privacy.epsilon": [1, 3, 8]}.'
    )


def as_toml(value: Any) -> str:
    """Write a value in TOML's words; of NumPy and pandas, its plain form.

    Raises:
        SettingsError: TOML cannot hold it.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {as_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple, range)):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, (bool, str)):
        return json.dumps(value)
    if isinstance(value, Path):
        return json.dumps(str(value))
    if isinstance(value, Integral):
        return json.dumps(int(value))
    if isinstance(value, Real):
        return json.dumps(float(value))
    raise SettingsError(f"Expected a value that TOML can hold, got {value!r} ({type(value).__name__}).")


def _is_several(values: Any) -> bool:
    return isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping))
