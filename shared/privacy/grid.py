"""Fix the public grid on which gradients are rounded and noise is drawn, and what rounding adds to a sum's sensitivity.

A unit's clipped gradient is rounded to the nearest point of a grid with step gamma = `GRID` x clip_norm, number by
number. Rounding d numbers moves it by at most gamma x sqrt(d) / 2, so a unit moves the sum by no more than

    C' = C + gamma x sqrt(d) / 2 <= C x (1 + `ROUNDING`)   for d <= `MOST_NUMBERS`.

The noise has standard deviation sigma x C', and is a discrete Gaussian on the same grid. A sum of multiples of gamma is
the same whatever the order of its terms, and so is everything that is computed from it.

The accountant's formula is that of the continuous Gaussian. At integer orders alpha the moments of the likelihood ratio
are the same: E[(Q_v / Q)^j] = exp(j (j - 1) |v|² / 2 s²) for every shift v on the grid, because the sum over the grid
of exp(-|x - j v|² / 2 s²) is that of exp(-|x|² / 2 s²). So is the bound for Poisson samples, a binomial sum of these.
At other orders a sum over the grid differs from the integral by its Fourier transform at the grid's frequencies
(Poisson summation), which is below 2 d exp(-2 pi² (s / gamma) min(s / gamma, s / (2 C'))): with s / gamma above 10^5,
less than any number that float64 can tell from zero. tests/shared/privacy/test_grid.py compares both numerically.
"""

GRID = 2.0**-24
"""gamma, the step of the grid, as a share of clip_norm."""
ROUNDING = 2.0**-12
"""The most that rounding adds to a unit's length, as a share of clip_norm."""
MOST_NUMBERS = int((2 * ROUNDING / GRID) ** 2)
"""The most numbers of one sum for which `ROUNDING` holds."""

NOISE_STEPS = (1 + ROUNDING) / GRID
"""Standard deviation of the noise in steps of the grid, for a noise multiplier of 1."""


def sensitivity(clip_norm: float) -> float:
    """Return C', how far adding or removing one unit moves a sum of rounded gradients, l2."""
    return clip_norm * (1 + ROUNDING)
