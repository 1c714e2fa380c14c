"""Checks whose errors name the value: `positive(noise_multiplier=0.0)` reports which number is wrong and its value."""

import math

from shared.errors import SettingsError


def finite(**values: float) -> None:
    """Refuse NaN and infinities."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise SettingsError(f"Expected a finite number, got {name}={value!r}.")


def positive(**values: float) -> None:
    """Refuse anything that is not a finite number above zero."""
    finite(**values)
    for name, value in values.items():
        if value <= 0:
            raise SettingsError(f"Expected a number above 0, got {name}={value!r}.")


def at_least(minimum: float, **values: float) -> None:
    """Refuse anything that is not a finite number of at least `minimum`."""
    finite(**values)
    for name, value in values.items():
        if value < minimum:
            raise SettingsError(f"Expected a number of at least {minimum}, got {name}={value!r}.")


def probability(**values: float) -> None:
    """Refuse anything outside (0, 1]."""
    finite(**values)
    for name, value in values.items():
        if not 0 < value <= 1:
            raise SettingsError(f"Expected a probability in (0, 1], got {name}={value!r}.")
