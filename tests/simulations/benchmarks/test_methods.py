"""The benchmark of a server's ways: every way trains, and a lie costs the mean more than the geometric median."""

import math
from typing import Any

import numpy as np
import pytest

from shared.study.declaration import Study
from simulations.benchmarks.quality.methods import LIES, Federation, Records, liars, table
from simulations.benchmarks.quality.server_ways import ROBUST, SECOND_DECAY, WAYS, RoundNumbers


def records(count: int = 1200) -> Records:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count)
    features = generator.standard_normal((count, 6)) + 3 * (labels[:, None] - 0.5)
    sites = np.array(["east", "west"])[(np.arange(count) % 3 == 0).astype(int)]
    return Records(np.concatenate([features, np.ones((count, 1))], axis=1), labels, sites)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_learns(make_study: Any, way: str) -> None:
    study: Study = make_study(privacy={"epsilon": 8.0}, federation={"rounds": 6})
    federation = Federation(records(), study, seed=1)
    assert [len(site) for site in federation.sites] == [610, 290], "its own sites, of the records that are trained on"
    assert federation.accuracy(WAYS[way]) > 0.9


@pytest.mark.parametrize("way", ["FedAdam, 10", "FedYogi, 10"])
def test_of_noise_alone_a_second_moment_keeps_next_to_nothing(way: str) -> None:
    generator, memory = np.random.default_rng(0), dict[str, Any]()
    for number in range(8):
        numbers = RoundNumbers(number, [1.0, 1.0], math.sqrt(0.5), [1.0, 1.0], 1.0, memory)
        WAYS[way].combine(numbers, [generator.standard_normal(20_000) for _ in range(2)])
    unbiased = float(np.mean(memory["power"])) / (1 - SECOND_DECAY**8)
    assert abs(unbiased) < 0.03 * numbers.first_deviation**2, "the noise's variance is 0.5, and taken out"


def test_a_lie_costs_the_mean_and_not_the_geometric_median(make_study: Any) -> None:
    study: Study = make_study(privacy={"epsilon": 8.0}, federation={"rounds": 6})
    cells = {}
    for lie in ("nobody", "turned round, as long as is admitted"):
        federation = Federation(records(), study, 1, equal=5, lie=lie)
        cells["set", 3.0, 1, lie] = {way: federation.accuracy(WAYS[way]) for way in ROBUST}
    lied = cells["set", 3.0, 1, "turned round, as long as is admitted"]
    assert lied["mean"] < 0.5 < 0.9 < lied["geometric median"]
    rows = [*liars(cells, [*cells])]
    assert len(rows) == 2 + len(cells) and "labels flipped" in LIES
    assert [*table({("set", 3.0, 1, ""): dict.fromkeys(WAYS, 0.5)})][2:4] == [
        "| mean | 0.500 |",
        "| last two rounds averaged | 0.0 |",
    ]
