"""An epsilon in plain words, the same wherever one is shown."""

import math

TOO_LARGE = 30.0
"""Beyond this, factor and guess say nothing any more."""

NO_PROTECTION = 10.0
"""Beyond this, an epsilon is said to be practically no protection."""


def factor(epsilon: float) -> str:
    """Return e^epsilon with two digits: how many times as likely an output can become because one unit took part."""
    if epsilon >= TOO_LARGE:
        return "more than a trillion"
    value = math.exp(epsilon)
    return f"{value:.1f}" if value < 10 else f"{float(f'{value:.2g}'):,.0f}"


def best_guess(epsilon: float) -> str:
    """Return how often, in percent, somebody who would otherwise toss a coin guesses right whether a unit took part.

    With a prior of 1/2, no output leads to more than e^epsilon / (1 + e^epsilon); delta aside.
    """
    percent = 100 / (1 + math.exp(-epsilon))
    return f"{percent:.0f} %" if percent < 99 else f"{math.floor(percent * 10) / 10:.1f} %"


def if_all_collude(epsilon: float) -> str:
    """Return what is left of a promise if all other nodes of a study with shared noise collude, in a few words."""
    if epsilon > NO_PROTECTION:
        return f"practically no protection: epsilon {math.ceil(epsilon):,}"
    return f"epsilon {math.ceil(100 * epsilon) / 100:.2f}"


def in_words(epsilon: float, unit: str = "record") -> str:
    """Return what an epsilon promises to one unit, in one sentence for somebody who decides.

    Args:
        epsilon: of everything that is spoken of, not negative.
        unit: whose presence is hidden.
    """
    if epsilon <= 0:
        return f"In plain words, epsilon 0 means that nothing has been sent that depends on any {unit}."
    return (
        f"In plain words, epsilon {epsilon:.3g} means that whatever is seen is at most {factor(epsilon)} times as "
        f"likely because one {unit} took part: who would toss a coin over that guesses right {best_guess(epsilon)} of "
        "the time at best, delta aside."
    )
