"""Which runs repeat one another: by the seeds of every source, whether or not it has one of its own."""

from collections.abc import Mapping, Sequence

import pytest
from rich.console import Console

from shared.errors import SettingsError
from shared.evidence.facts import Language
from shared.evidence.signed_report import SignedReport, written
from simulations.api import compare
from simulations.results.report import report_of
from simulations.results.result import Result
from simulations.run_identity.seeds import crossed, seeds_of, varying
from simulations.sweeps.cells import Cell
from simulations.sweeps.outcome import Sweep
from simulations.sweeps.statistics import rows_of
from simulations.sweeps.text import render
from tests.support.results import result


def of_seeds(seed: int, *, value: float = 0.8, **apart: int) -> Result:
    return result(value, simulation={"seed": seed, "seeds": apart, "data": {"source": "letters.csv"}})


def scenario(seed: int, **apart: int | None) -> Mapping[str, object]:
    return {"simulation": {"seed": seed, "seeds": apart}}


def test_a_source_without_a_seed_of_its_own_has_the_runs() -> None:
    assert seeds_of(scenario(3, noise=4, split=None)) == (3, 4, 3, 3, 3) and seeds_of({}) == (0,) * 5
    assert seeds_of(scenario(1)) == seeds_of(scenario(1, noise=1))
    assert seeds_of(scenario(1)).in_words == "1" and seeds_of(scenario(1, noise=2)).in_words == "1 with noise 2"


@pytest.mark.parametrize(
    ("seeds", "names", "shared"),
    [
        ([scenario(1), scenario(2)], ("noise", "batches", "split", "holdout"), False),
        ([scenario(1, noise=1), scenario(1, noise=2), scenario(1, noise=3)], ("noise",), False),
        ([scenario(1, noise=1), scenario(1, noise=2), scenario(2)], ("noise", "batches", "split", "holdout"), True),
        ([scenario(1, split=7), scenario(2, split=7)], ("noise", "batches", "holdout"), False),
        ([scenario(1)], (), False),
    ],
)
def test_what_varies_is_named_and_shared_seeds_are_seen(
    seeds: Sequence[Mapping[str, object]], names: tuple[str, ...], shared: bool
) -> None:
    assert varying([*map(seeds_of, seeds)]) == names and crossed([*map(seeds_of, seeds)]) is shared


CROSSED = [of_seeds(seed, noise=noise, value=0.7 + seed / 100 + noise / 50) for seed in (1, 2) for noise in (3, 4)]


def test_runs_that_share_a_seed_make_no_report_and_no_comparison() -> None:
    with pytest.raises(SettingsError, match="whose seeds all differ, got 1 with noise 3; 1 with noise 4; 2 with"):
        report_of(CROSSED)
    with pytest.raises(SettingsError, match="whose seeds all differ"):
        compare(CROSSED)
    assert report_of(CROSSED[:2]).answer is not None


def test_a_report_names_what_its_seeds_vary() -> None:
    def words(*results: Result, language: Language = "en") -> str:
        report = report_of(results, language=language)
        return " ".join(written(SignedReport(report), "html").decode().split())

    noise, runs = [of_seeds(1, noise=one, value=one / 10) for one in (7, 8)], [of_seeds(one) for one in (1, 2)]
    assert "2 seeds, which differ in noise: pairs" in words(*noise)
    assert "die sich in Rauschen unterscheiden" in words(*noise, language="de")
    assert "2 seeds, which differ in noise, batches and splits: pairs" in words(*runs)
    split = [of_seeds(one, noise=3, batches=3, holdout=3) for one in (1, 2)]
    assert "2 seeds, which differ in the split into sites: pairs" in words(*split)
    assert report_of(runs).simulation.seeds_of == (), "as in reports of before"  # type: ignore[union-attr]


def test_a_sweep_names_what_its_seeds_vary(capsys: pytest.CaptureFixture[str]) -> None:
    def words(*results: Result) -> str:
        runs = {Cell((), (("simulation.seed", str(place)),)): one for place, one in enumerate(results)}
        render(Sweep(runs, {}, rows_of(runs), [], None), Console(width=200))
        return " ".join(capsys.readouterr().out.split())

    assert "over seeds, which differ in noise of these data" in words(of_seeds(1, noise=7), of_seeds(1, noise=8))
    assert "over seeds, which differ in noise, batches and splits of these" in words(of_seeds(1), of_seeds(2))
