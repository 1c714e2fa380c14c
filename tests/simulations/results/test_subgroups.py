"""Rates and gaps between subgroups are those of a naive count, and their intervals those of fresh people."""

from typing import Any

import numpy as np
import pytest

from simulations.engines.worker import Seen
from simulations.experiment.sites import Groups
from simulations.results.report import FEWEST
from simulations.results.subgroups import RATES, subgroups_of_arm

Predictions = tuple[list[Seen], Groups, dict[str, list[str]]]


def predictions(seed: int, *, women: float, men: float, people: int = 400, records: int = 1) -> Predictions:
    """Two sites; women and men are treated right with a chance of their own."""
    generator = np.random.default_rng(seed)
    seen, of_site, values = [], {}, {}
    for site in ("north", "south"):
        sexes = generator.choice(["women", "men"], people // 2)
        true = generator.integers(0, 2, people // 2)
        right = generator.random(people // 2) < np.where(sexes == "women", women, men)
        guessed = np.where(right, true, 1 - true)
        pairs = [(int(g), int(t)) for g, t in zip(guessed, true, strict=True) for _ in range(records)]
        seen.append(Seen(site, pairs))
        of_site[site] = np.repeat(np.arange(people // 2) + 1000 * len(seen), records)
        values[site] = [str(sex) for sex in sexes for _ in range(records)]
    return seen[::-1], Groups("person", of_site), values


def arm(seed: int, *, two_labels: bool = True, **chances: Any) -> Any:
    seen, groups, values = predictions(seed, **chances)
    return subgroups_of_arm(seen, groups, values, two_labels=two_labels)


def test_rates_are_those_of_a_naive_count() -> None:
    seen, groups, values = predictions(0, women=0.7, men=0.9)
    women = [
        pair for site in seen for pair, sex in zip(site.evidence, values[site.site], strict=True) if sex == "women"
    ]
    found = subgroups_of_arm(seen, groups, values, two_labels=True).subgroups["women"]
    assert (found.records, found.units) == (len(women), len(women))
    positive, negative = [p for p in women if p[1] == 1], [p for p in women if p[1] == 0]
    assert found.rates == {
        "accuracy": pytest.approx(sum(p == t for p, t in women) / len(women)),
        "selection rate": pytest.approx(sum(p for p, _ in women) / len(women)),
        "true-positive rate": pytest.approx(sum(p for p, _ in positive) / len(positive)),
        "false-positive rate": pytest.approx(sum(p for p, _ in negative) / len(negative)),
    }


def test_gaps_are_those_of_fairlearn() -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    seen, groups, values = predictions(1, women=0.6, men=0.8)
    guessed, true = np.array([pair for site in seen for pair in site.evidence]).T
    sexes = [sex for site in seen for sex in values[site.site]]
    frame = metrics.MetricFrame(
        metrics=dict(
            zip(
                RATES,
                (
                    lambda t, p: float(np.mean(t == p)),
                    metrics.selection_rate,
                    metrics.true_positive_rate,
                    metrics.false_positive_rate,
                ),
                strict=True,
            )
        ),
        y_true=true,
        y_pred=guessed,
        sensitive_features=sexes,
    )
    gaps = subgroups_of_arm(seen, groups, values, two_labels=True).gaps
    assert {name: gap.value for name, gap in gaps.items()} == pytest.approx(frame.difference().to_dict())


def test_intervals_cover_the_true_gap_and_equal_treatment_shows_what_chance_does() -> None:
    """Of 40 intervals of 95 %, fewer than 33 cover with a chance below 1 in 2,000."""
    unequal = [arm(seed, women=0.6, men=0.85).gaps["accuracy"] for seed in range(40)]
    assert sum(gap.low <= 0.25 <= gap.high for gap in unequal) >= 33
    assert all(gap.low > gap.by_chance for gap in unequal), "no chance makes such a gap"
    equal = [arm(seed, women=0.8, men=0.8).gaps["accuracy"] for seed in range(40)]
    assert 8 <= sum(gap.value > gap.by_chance for gap in equal) <= 32


def test_people_are_drawn_with_all_their_records() -> None:
    alone, many = (arm(3, women=0.7, men=0.8, records=records) for records in (1, 5))
    assert many.subgroups["women"].records == 5 * alone.subgroups["women"].records
    assert many.subgroups["women"].units == alone.subgroups["women"].units
    assert many.gaps["accuracy"].high == pytest.approx(alone.gaps["accuracy"].high), "five copies tell nothing new"


def test_a_small_subgroup_is_shown_and_makes_no_gap_and_a_blank_is_no_subgroup() -> None:
    seen, groups, values = predictions(4, women=0.8, men=0.8)
    values["north"][: FEWEST - 1] = ["few"] * (FEWEST - 1)
    values["south"][:10] = [""] * 10
    fairness = subgroups_of_arm(seen, groups, values, two_labels=False)
    assert sorted(fairness.subgroups) == ["few", "men", "women"] and fairness.subgroups["few"].units == FEWEST - 1
    assert list(fairness.gaps) == ["accuracy"] and fairness.gaps["accuracy"].value < 0.15
    values |= {site: ["all"] * len(names) for site, names in values.items()}
    assert subgroups_of_arm(seen, groups, values, two_labels=True).gaps == {}


def test_what_privacy_does_to_a_subgroup_is_held_by_its_interval_and_nothing_done_is_not_claimed() -> None:
    """Of 40 intervals of 95 %, fewer than 33 cover with a chance below 1 in 2,000."""
    hurt = kept = gap = 0
    for seed in range(40):
        plain, groups, values = predictions(seed, women=0.85, men=0.85)
        luck, noisy = np.random.default_rng(seed), list[Seen]()
        for site in plain:
            flipped = luck.random(len(site.evidence)) < np.where(np.array(values[site.site]) == "women", 0.2, 0.0)
            pairs = [
                (1 - guess, true) if flip else (guess, true)
                for (guess, true), flip in zip(site.evidence, flipped, strict=True)
            ]
            noisy.append(Seen(site.site, pairs))
        fairness = subgroups_of_arm(noisy, groups, values, two_labels=True, reference=plain)
        women, men = (fairness.subgroups[name].effects["accuracy"] for name in ("women", "men"))
        hurt += women.low <= 0.2 * (0.15 - 0.85) <= women.high
        kept += men.low == men.value == men.high == 0
        wider = fairness.gaps["accuracy"].effect
        gap += wider is not None and wider.value > 0 and wider.low <= 0.14 <= wider.high
    assert hurt >= 33 and kept == 40 and gap >= 30
    assert subgroups_of_arm(plain, groups, values, two_labels=True).subgroups["women"].effects == {}
