"""Write a task's metric for people: its name, its direction, its figures, its axis."""

import math
from collections.abc import Iterable

ABBREVIATIONS = {
    word: word.upper() for word in ("auc", "bleu", "cer", "f1", "mae", "mape", "mcc", "mse", "r2", "rmse", "wer")
} | {"chrf": "chrF", "iou": "IoU", "rouge": "ROUGE", "rougel": "ROUGE-L"}


def words(metric: str) -> str:
    """Return a metric's name inside a sentence: `macro_f1` becomes macro F1."""
    return " ".join(ABBREVIATIONS.get(word, word) for word in metric.split("_"))


def heading(metric: str, where: str, *, higher_is_better: bool = True) -> str:
    """Return a title such as: Perplexity on held-out records (lower is better)."""
    name = words(metric)
    return f"{name[:1].upper()}{name[1:]} {where}{direction(higher_is_better=higher_is_better)}"


def direction(*, higher_is_better: bool) -> str:
    """Return what to add to a name; nothing where readers expect higher to be better."""
    return "" if higher_is_better else " (lower is better)"


def shown(value: float) -> str:
    """Write a value with about as many digits as it deserves; inf and nan by name."""
    size = abs(value)
    if not math.isfinite(value):
        return str(float(value))
    if 0 < size < 0.001:
        return f"{value:.1e}"
    if size < 10:
        return f"{value:.3f}"
    if size < 1000:
        return f"{value:.1f}"
    return f"{value:.0f}" if size < 1e6 else f"{value:.2e}"


def signed(value: float) -> str:
    """Write a difference with its sign, as `shown` writes a value."""
    return shown(value) if math.isnan(value) else ("-" if value < 0 else "+") + shown(abs(value))


def points(value: float) -> str:
    """Write a difference of shares in hundredths, with its sign."""
    return f"{100 * value:+.1f}"


def drawable(value: float) -> float | None:
    """Return the value for a plot; None, which plots leave out, where it is not finite."""
    return value if math.isfinite(value) else None


def axis_range(values: Iterable[float], *, higher_is_better: bool) -> list[int] | None:
    """Return [0, 1] for a share of what could be reached; None, so that values choose the axis, for anything else."""
    return [0, 1] if is_share(values, higher_is_better=higher_is_better) else None


def is_share(values: Iterable[float], *, higher_is_better: bool) -> bool:
    """Return whether values are shares of what could be reached, whose hundredths are called points."""
    return higher_is_better and all(0 <= value <= 1 for value in values)
