"""Write a task's metric for people: its name, its direction, its figures, its axis."""

from collections.abc import Iterable

from shared.evidence.figures import points, shown, signed

__all__ = ["direction", "heading", "is_share", "points", "shown", "signed", "words"]

ABBREVIATIONS = {
    word: word.upper() for word in ("auc", "bleu", "cer", "f1", "mae", "mape", "mcc", "mse", "r2", "rmse", "wer")
} | {"chrf": "chrF", "iou": "IoU", "rouge": "ROUGE", "rougel": "ROUGE-L"}


SHARES = frozenset({"accuracy", "macro_f1", "f1", "entity_f1", "mean_iou", "rouge_l", "ndcg_at_10"})
"""Main metrics that lie between 0 and 1 by definition, and so do intervals of theirs."""


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


def is_share(values: Iterable[float], *, higher_is_better: bool) -> bool:
    """Return whether values are shares of what could be reached, whose hundredths are called points."""
    return higher_is_better and all(0 <= value <= 1 for value in values)
