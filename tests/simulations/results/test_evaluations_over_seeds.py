"""Private evaluations of several seeds: one section of the report, with intervals that keep what they promise."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from shared.evidence.signed_report import SignedReport, verify, written
from shared.private_evaluation.cells import STEPS, Axis, Cells
from shared.private_evaluation.estimates import Estimate, Evaluated, estimates
from simulations.results.report import evaluated, report_of
from simulations.results.result import Result
from simulations.sweeps.cells import Cell
from simulations.sweeps.outcome import Sweep, write
from simulations.sweeps.statistics import against_first, rows_of
from simulations.sweeps.text import render
from tests.support.results import result

CELLS = Cells("right-wrong", (Axis("group", ("old", "young", "other")), Axis("outcome", ("right", "wrong"))))
SIGMA = 3.73


def release(generator: np.random.Generator, *, accuracy: float = 0.8, units: int = 150, number: int = 8) -> Evaluated:
    """One evaluation of two sites whose groups are all treated alike."""
    counts = {}
    for site in ("north", "south"):
        right = generator.binomial(units, accuracy, 3)
        exact = np.stack([right, units - right], axis=1).ravel()
        counts[site] = np.rint((exact + generator.normal(0, SIGMA, 6)) * STEPS).astype(np.int64)
    made = estimates(CELLS, counts, SIGMA)
    return Evaluated(number=number, epsilon=1.1, sigma=SIGMA, sites=("north", "south"), estimates=made)


def runs(releases: Sequence[Evaluated]) -> list[Result]:
    return [
        result(0.8, seed=seed).model_copy(update={"evaluations": [one]}) for seed, one in enumerate(releases, start=1)
    ]


def of(whole: Evaluated | None, scope: str, measure: str = "accuracy") -> Estimate:
    assert whole is not None
    return next(one for one in whole.estimates if (one.scope, one.measure) == (scope, measure))


def test_a_report_over_seeds_shows_the_private_evaluation_with_intervals() -> None:
    generator = np.random.default_rng(1)
    report = report_of(runs([release(generator) for _ in range(3)]))
    page = written(SignedReport(report), "html").decode()
    one = of(report.further.evaluation, "all sites")
    assert one.low is not None and one.high is not None and one.low < 0.8 < one.high and one.low_here is None
    assert "After round 8 of each of 3 runs" in page and "means over 3 seeds" in page
    assert "of these units" not in page, "noise alone has no interval over seeds"
    verify(page.encode(), None)


def test_over_seeds_no_gap_is_claimed_and_accuracy_is_held_as_often_as_is_said() -> None:
    """Of 150 sweeps over two seeds: a gap that is not there in at most 5 of 100, accuracy inside in about 95."""
    generator, gaps, inside, worst = np.random.default_rng(2), 0, 0, 0
    for _ in range(150):
        whole = evaluated(runs([release(generator) for _ in range(2)]))
        gap, accuracy, least = (of(whole, scope) for scope in ("gap", "all sites", "worst site"))
        gaps += (gap.low or 0.0) > 0
        inside += (accuracy.low or 0.0) <= 0.8 <= (accuracy.high or 0.0)
        worst += (least.low or 0.0) <= 0.8 <= (least.high or 0.0)
    assert gaps <= 7 and worst >= 142 and 136 <= inside <= 149, (gaps, inside, worst)


def test_what_one_seed_does_not_show_is_not_shown_and_other_rounds_have_no_mean() -> None:
    generator = np.random.default_rng(3)
    known, small = release(generator), release(generator, units=4)
    assert of(small, "subgroup").value is None and of(known, "subgroup").value is not None
    assert of(evaluated(runs([known, small])), "subgroup").value is None
    assert evaluated(runs([known, release(generator, number=4)])) is None
    assert evaluated([*runs([known]), result(0.8, seed=2)]) is None


def test_a_sweep_writes_and_prints_the_evaluations_of_each_setting(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    results = {
        Cell((("privacy.epsilon", str(epsilon)),), (("simulation.seed", str(seed)),)): one
        for epsilon in (1, 3)
        for seed, one in enumerate(runs([release(generator), release(generator)]))
    }
    sweep = Sweep(results, {}, rows_of(results), against_first(results, ()), None)
    write(sweep, tmp_path)
    plain = json.loads((tmp_path / "sweep.json").read_text())["private_evaluations"]
    assert [one["setting"] for one in plain] == [{"privacy.epsilon": 1}, {"privacy.epsilon": 3}]
    assert {one["scope"] for one in plain[0]["estimates"]} >= {"all sites", "worst site", "gap", "site"}
    console = Console(file=io.StringIO(), width=160)
    render(sweep, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Private evaluations" in printed and printed.count("worst site (") == 2
