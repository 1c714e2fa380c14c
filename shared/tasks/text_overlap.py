"""Measure how much of a reference text a generated text holds: ROUGE-L for summaries, chrF for translations."""

import re
from collections import Counter
from collections.abc import Sequence

CHARACTER_ORDERS = 6
RECALL_WEIGHT = 4.0  # beta squared, with recall counting twice as much as precision


def rouge_l(guess: str, truth: str) -> float:
    """Compute F1 of the longest common subsequence of words, from 0 to 1.

    Words are runs of letters and digits; upper and lower case are equal.

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", section 3.1; without stemming.
    """
    guessed, true = _words(guess), _words(truth)
    common = _longest_common(guessed, true)
    return 2 * common / (len(guessed) + len(true)) if common else 0.0


def chrf(guesses: Sequence[str], truths: Sequence[str]) -> float:
    """Compute the F-score of character n-grams of 1 to 6 over all texts together, from 0 to 100; spaces are ignored.

    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; as sacreBLEU computes chrF2.
    """
    precision, recall, orders = 0.0, 0.0, 0
    for order in range(1, CHARACTER_ORDERS + 1):
        matched, guessed, true = 0, 0, 0
        for guess, truth in zip(guesses, truths, strict=True):
            held, wanted = _grams(guess, order), _grams(truth, order)
            matched += (held & wanted).total()
            guessed, true = guessed + held.total(), true + wanted.total()
        if guessed and true:
            precision, recall, orders = precision + matched / guessed, recall + matched / true, orders + 1
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * (1 + RECALL_WEIGHT) * precision * recall / (RECALL_WEIGHT * precision + recall)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def _grams(text: str, order: int) -> Counter[str]:
    letters = "".join(text.split())
    return Counter(letters[start : start + order] for start in range(len(letters) - order + 1))
