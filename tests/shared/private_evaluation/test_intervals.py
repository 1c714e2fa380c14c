"""Each 95 % interval, over 2,000 simulated releases at a time.

A share of exactly 95 % lies outside 94 to 96 % with probability 0.04; seeds are fixed, and what was found over 40,000
releases stands beside each claim.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.private_evaluation.averages import MacroF1, Mean
from shared.private_evaluation.conditional import interval_if_shown
from shared.private_evaluation.intervals import SHOWN_ABOVE, Interval, Quantity, Share, gap, least

RELEASES = 2000
SIGMAS = {"epsilon 2": 1.99, "epsilon 1": 3.73}
Floats = NDArray[np.float64]


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(20)


def coverage(interval: Interval, truth: float) -> float:
    return float(((interval.low <= truth) & (truth <= interval.high)).mean())


def share(noise: np.random.Generator, inside: Floats, total: float, sigma: float) -> Share:
    """A share of two cells, each with noise of its own."""
    noised, rest = (each + noise.normal(0, sigma, RELEASES) for each in (inside, total - inside))
    return Share(noised, noised + rest, 1, 2, sigma)


def of_these(noise: np.random.Generator, rate: float, units: int, sigma: float) -> Share:
    return share(noise, np.full(RELEASES, round(units * rate)), units, sigma)


def drawn(noise: np.random.Generator, rate: float, units: int, sigma: float) -> Share:
    return share(noise, noise.binomial(units, rate, RELEASES).astype(float), units, sigma)


@pytest.mark.guarantee("the interval of a share holds it in 95 of 100 releases; in more where it is near 0 or 1.")
@pytest.mark.parametrize("sigma", SIGMAS.values(), ids=SIGMAS)
@pytest.mark.parametrize(("rate", "units"), [(0.5, 30), (0.7, 60), (0.8, 200), (0.6, 2000)])
def test_a_share_is_in_its_interval(noise: np.random.Generator, rate: float, units: int, sigma: float) -> None:
    # over 40,000: 94.7 to 95.3 %
    assert (
        0.94
        <= coverage(of_these(noise, rate, units, sigma).interval(sampling=False), round(units * rate) / units)
        <= 0.96
    )
    assert 0.94 <= coverage(drawn(noise, rate, units, sigma).interval(sampling=True), rate) <= 0.96


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.98, 1.0])
def test_a_share_near_an_end_is_in_its_interval_more_often(noise: np.random.Generator, rate: float) -> None:
    few = drawn(noise, rate, 100, 3.73)
    assert coverage(few.interval(sampling=True), rate) >= 0.96
    both = few.interval(sampling=True)
    assert (both.high - both.low >= 0.03).all(), "and none is narrower for a count below 0"


def test_a_total_that_is_noise_says_nothing_and_is_not_shown() -> None:
    nothing = Share(np.array([2.0, -3.0]), np.array([4.0, -1.0]), 1, 2, 3.73)
    assert not nothing.shown.any()
    assert nothing.interval(sampling=False) == (pytest.approx([0, 0]), pytest.approx([1, 1]))


def test_without_noise_and_draw_an_interval_is_its_estimate() -> None:
    exact = Share(80.0, 100.0, 1, 2, 0.0)
    assert exact.interval(sampling=False) == (pytest.approx(0.8), pytest.approx(0.8))


def test_without_noise_it_is_wilsons_interval() -> None:
    low, high = Share(80.0, 100.0, 1, 2, 0.0).interval(sampling=True)
    assert (float(low), float(high)) == (pytest.approx(0.7112, abs=5e-5), pytest.approx(0.8666, abs=5e-5))


@pytest.mark.guarantee("the interval of macro-F1 holds it in 94 to 96 of 100 releases.")
@pytest.mark.parametrize("sigma", SIGMAS.values(), ids=SIGMAS)
@pytest.mark.parametrize(("sizes", "right"), [((100, 100), 0.8), ((400, 300, 60), 0.85), ((150,) * 5, 0.7)])
def test_macro_f1_is_in_its_interval(
    noise: np.random.Generator, sizes: tuple[int, ...], right: float, sigma: float
) -> None:
    classes = len(sizes)
    rates = np.full((classes, classes), (1 - right) / (classes - 1))
    np.fill_diagonal(rates, right)
    expected = rates * np.array(sizes)[:, None]
    here = np.round(expected) + noise.normal(0, sigma, (RELEASES, classes, classes))
    people = noise.multinomial(sum(sizes), (expected / sum(sizes)).ravel(), RELEASES).reshape(here.shape)
    # over 20,000: 94.5 to 95.4 %
    assert 0.94 <= coverage(MacroF1(here, sigma).interval(sampling=False), f1(np.round(expected))) <= 0.96
    noised = MacroF1(people + noise.normal(0, sigma, here.shape), sigma)
    assert 0.94 <= coverage(noised.interval(sampling=True), f1(expected)) <= 0.96


def f1(confusion: Floats) -> float:
    hits = np.diag(confusion)
    return float(np.mean(2 * hits / (confusion.sum(axis=0) + confusion.sum(axis=1))))


@pytest.mark.guarantee(
    "the interval of a mean holds it in 95 of 100 releases; in more near the least or largest value."
)
@pytest.mark.parametrize("units", [60, 200, 1000])
def test_a_mean_score_is_in_its_interval(noise: np.random.Generator, units: int) -> None:
    middles, rates, sigma = (np.arange(5) + 0.5) / 5, np.array([0.1, 0.1, 0.2, 0.3, 0.3]), 1.99
    here = np.round(units * rates) + noise.normal(0, sigma, (RELEASES, 5))
    truth = float(np.round(units * rates) @ middles / np.round(units * rates).sum())
    assert 0.94 <= coverage(Mean(here, middles, sigma).interval(sampling=False), truth) <= 0.96
    people = noise.multinomial(units, rates, RELEASES) + noise.normal(0, sigma, (RELEASES, 5))
    assert 0.94 <= coverage(Mean(people, middles, sigma).interval(sampling=True), float(rates @ middles)) <= 0.98


@pytest.mark.guarantee(
    "the interval of the worst site holds the least value of all sites in at least 95 of 100 releases."
)
@pytest.mark.parametrize("rates", [(0.8,), (0.8,) * 4, (0.8, 0.79, 0.78, 0.77), (0.9, 0.9, 0.9, 0.6)])
def test_the_least_is_in_its_interval(noise: np.random.Generator, rates: tuple[float, ...]) -> None:
    # over 20,000: 96.0 to 98.4 %, and 95.0 % of one site alone
    sites: list[Quantity] = [drawn(noise, rate, 200, 3.73) for rate in rates]
    assert coverage(least(sites, sampling=True), min(rates)) >= 0.94
    here: list[Quantity] = [of_these(noise, rate, 200, 3.73) for rate in rates]
    assert coverage(least(here, sampling=False), min(rates)) >= 0.94


@pytest.mark.parametrize("units", [100, 500])
def test_a_gap_of_two_groups_is_in_its_interval(noise: np.random.Generator, units: int) -> None:
    # over 20,000: 94.8 to 95.5 %
    for rates in ((0.8, 0.8), (0.85, 0.6)):
        people: list[Quantity] = [drawn(noise, rate, units, 1.99) for rate in rates]
        assert 0.94 <= coverage(gap(people, sampling=True), rates[0] - rates[1]) <= 0.96
        here: list[Quantity] = [of_these(noise, rate, units, 1.99) for rate in rates]
        assert 0.94 <= coverage(gap(here, sampling=False), rates[0] - rates[1]) <= 0.96


@pytest.mark.guarantee(
    "where there is no gap, at most 5 of 100 releases say that there is one, however many groups there are."
)
@pytest.mark.parametrize("groups", [2, 3, 6])
def test_a_gap_that_is_not_there_is_seldom_said(noise: np.random.Generator, groups: int) -> None:
    # over 20,000: 4.7 to 5.2 % of two groups, 3.8 to 4.5 % of more
    alike: list[Quantity] = [drawn(noise, 0.8, 200, 3.73) for _ in range(groups)]
    said = float((gap(alike, sampling=True).low > 0).mean())
    assert 0.03 <= said <= 0.06


def test_a_large_gap_is_said(noise: np.random.Generator) -> None:
    groups: list[Quantity] = [drawn(noise, rate, 300, 3.73) for rate in (0.85, 0.8, 0.65)]
    interval = gap(groups, sampling=True)
    assert (interval.low > 0).mean() > 0.95 and coverage(interval, 0.2) >= 0.94


@pytest.mark.guarantee(
    "among rows that are shown, whatever their true count, the interval holds the share in 95 of 100 or more."
)
@pytest.mark.parametrize("cells", [2, 10])
@pytest.mark.parametrize("deviations", [4.0, 5.0, 6.0, 12.0])
def test_a_row_that_noise_lifts_above_the_bound_is_in_its_interval(
    noise: np.random.Generator, cells: int, deviations: float
) -> None:
    # over 20,000 rows that are shown: 95.0 to 98.4 %; of the plain interval 84 to 98 %
    sigma, rate = 3.73, 0.85
    units = round(deviations * sigma * cells**0.5)
    for sampling, truth in ((False, round(units * rate) / units), (True, rate)):
        row = _shown(noise, units, rate if sampling else truth, cells, sigma, drawn_units=sampling)
        assert coverage(interval_if_shown(row, sampling=sampling), truth) >= 0.945
        plain = coverage(row.interval(sampling=sampling), truth)
        assert plain < 0.94 or deviations > 4, "which is why"


def test_far_above_the_bound_it_is_the_plain_interval() -> None:
    row = Share(np.array([300.0]), np.array([400.0]), 1, 10, 3.73)
    for sampling in (False, True):
        plain, shown = row.interval(sampling=sampling), interval_if_shown(row, sampling=sampling)
        assert shown == (pytest.approx(plain.low), pytest.approx(plain.high))


def _shown(
    noise: np.random.Generator, units: int, rate: float, cells: int, sigma: float, *, drawn_units: bool
) -> Share:
    """Rows of many cells that are shown, 2,000 of them."""
    many = 100 * RELEASES if units < SHOWN_ABOVE * sigma * cells**0.5 else 4 * RELEASES
    inside = noise.binomial(units, rate, many).astype(float) if drawn_units else np.full(many, units * rate)
    noised, rest = inside + noise.normal(0, sigma, many), noise.normal(0, sigma * (cells - 1) ** 0.5, many)
    total = noised - inside + units + rest
    passes = np.flatnonzero(Share(noised, total, 1, cells, sigma).shown)[:RELEASES]
    assert len(passes) == RELEASES
    return Share(noised[passes], total[passes], 1, cells, sigma)
