"""The largest site changes with the seed: over seeds its arm is one, in sweeps, reports and on a board."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from simulations.board.comparison import comparisons
from simulations.board.page import board_of
from simulations.board.runs import read_runs
from simulations.results.report import report_of
from simulations.results.result import Result
from simulations.sweeps.cells import Cell
from simulations.sweeps.statistics import rows_of
from tests.support.results import arm, quality, result, write_run

LARGEST = {1: "north", 2: "south", 3: "north"}


def of_seed(seed: int, *, single_site: str = "largest", **simulation: Any) -> Result:
    """A run whose largest site is another one at the seed 2, and as good as the seed says."""
    sections = {"seed": seed, "single_site": single_site, "data": {"source": "letters.csv"}} | simulation
    one, site = result(0.8, simulation=sections), LARGEST[seed]
    single = arm(f"{site} alone (largest)", quality(seed / 10), 3.0)
    return one.model_copy(update={"arms": one.arms | {f"single-site:{site}": single}})


def test_a_sweep_counts_the_largest_site_of_every_seed() -> None:
    runs = {Cell((), (("simulation.seed", str(seed)),)): of_seed(seed) for seed in LARGEST}
    (row,) = [row for row in rows_of(runs) if row.arm.startswith("single-site")]
    assert (row.arm, row.title, row.seeds) == ("single-site", "largest site alone", 3)
    assert row.quality.value == pytest.approx(0.2) and row.ahead is not None and row.ahead.seeds == 3


def test_a_sweep_shows_an_arm_that_the_first_seed_lacks() -> None:
    seeds = [of_seed(seed, single_site="every") for seed in (1, 2)]
    rows = rows_of({Cell((), (("simulation.seed", str(place)),)): one for place, one in enumerate(seeds)})
    assert [(row.arm, row.seeds) for row in rows if row.arm.startswith("single-site")] == [
        ("single-site:north", 1),
        ("single-site:south", 1),
    ]


def test_a_report_over_seeds_has_the_largest_site_once_and_that_of_one_run_names_it() -> None:
    over = report_of([of_seed(seed) for seed in LARGEST])
    assert over.simulation is not None
    (single,) = [one for one in over.simulation.arms if "alone" in one.title]
    assert single.title == "largest site alone" and single.quality.value == pytest.approx(0.2)
    one = report_of([of_seed(1)]).simulation
    assert one is not None and "north alone (largest)" in [each.title for each in one.arms]


def test_arms_of_sites_that_the_scenario_names_are_no_one_arm() -> None:
    with pytest.raises(SettingsError, match="differ in"):
        report_of([of_seed(seed, single_site="every") for seed in (1, 2)])


def test_a_board_has_the_largest_site_of_every_seed(tmp_path: Path) -> None:
    for seed in LARGEST:
        write_run(tmp_path / str(seed), of_seed(seed))
    read = read_runs([tmp_path])
    ((setting,),) = [one.settings for one in comparisons(read.runs)[0]]
    assert setting.arms["single-site"] == "largest site alone"
    assert setting.quality("single-site").value == pytest.approx(0.2)
    assert "largest site alone" in str(board_of(read.runs, [], lambda _run: None).sections)
