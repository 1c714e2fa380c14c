"""An epsilon in plain words says what the mathematics says."""

import math

import pytest

from shared.privacy.in_words import best_guess, factor, in_words


@pytest.mark.parametrize(
    ("epsilon", "times", "guess"),
    [(0.0, "1.0", "50 %"), (0.5, "1.6", "62 %"), (1.0, "2.7", "73 %"), (3.0, "20", "95 %"), (8.0, "3,000", "99.9 %")],
)
def test_the_figures_are_those_of_the_documents(epsilon: float, times: str, guess: str) -> None:
    assert (factor(epsilon), best_guess(epsilon)) == (times, guess)
    assert float(times.replace(",", "")) == pytest.approx(math.exp(epsilon), rel=0.04)
    posterior = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert float(guess.rstrip(" %")) == pytest.approx(100 * posterior, abs=0.5)


def test_the_sentence_names_the_unit_and_both_figures_and_no_epsilon_breaks_it() -> None:
    said = in_words(1.0, "patient")
    assert "at most 2.7 times as likely because one patient took part" in said and "73 %" in said
    assert "nothing has been sent" in in_words(0.0)
    assert "more than a trillion times" in in_words(100.0) and "100.0 %" in in_words(100.0)
