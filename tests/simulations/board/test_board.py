"""Runs side by side: seeds become intervals, what differs names a setting, and a page can be mailed."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shared.errors import SettingsError
from simulations.board.charts import MOST_LINES, best, epsilon_against_quality
from simulations.board.comparison import comparisons, families, paired
from simulations.board.page import board_of
from simulations.board.runs import differing, matching, parse_filter, read_runs
from simulations.cli import cli
from simulations.results.report import over_seeds
from tests.support.results import result, write_run

HOSTILE = "<script>alert(1)</script>&\"'"
VALUES = {(1.0, 1): 0.70, (1.0, 2): 0.74, (3.0, 1): 0.80, (3.0, 2): 0.86}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for (epsilon, seed), value in VALUES.items():
        write_run(tmp_path / f"e{epsilon:g}" / f"s{seed}", result(value, epsilon=epsilon, seed=seed))
    return tmp_path


def test_runs_that_differ_in_their_seed_alone_are_one_setting_with_an_interval(runs: Path) -> None:
    (one,), notes = comparisons(read_runs([runs]).runs)
    assert [(setting.label, len(setting.runs)) for setting in one.settings] == [("ε 1", 2), ("ε 3", 2)] and not notes
    assert one.settings[0].quality() == over_seeds([0.70, 0.74])
    assert one.settings[0].curve() == [(1.0, pytest.approx(0.62)), (2.0, pytest.approx(0.72))]


def test_differences_between_settings_are_paired_by_seed(runs: Path) -> None:
    (one,), _ = comparisons(read_runs([runs]).runs)
    difference = paired(*one.settings, higher_is_better=True)
    assert difference is not None and difference.value == pytest.approx(0.11)
    # 0.10 and 0.12: half an interval of t = 12.706 at one degree of freedom
    assert difference.high == pytest.approx(0.11 + 12.706 * 0.01, abs=1e-4)
    worse = paired(*one.settings, higher_is_better=False)
    assert worse is not None and worse.value == pytest.approx(-0.11)


def test_settings_without_a_common_seed_are_not_paired(tmp_path: Path) -> None:
    write_run(tmp_path / "a", result(0.7, epsilon=1.0, seed=1))
    write_run(tmp_path / "b", result(0.8, epsilon=3.0, seed=2))
    (one,), _ = comparisons(read_runs([tmp_path]).runs)
    assert paired(*one.settings, higher_is_better=True) is None
    assert one.settings[0].minus("without-privacy").low == -0.1, "one seed: over records"  # type: ignore[union-attr]


def test_only_figures_that_can_be_compared_stand_in_one_table(tmp_path: Path) -> None:
    write_run(tmp_path / "a", result(0.7))
    write_run(tmp_path / "b", result(40.0, metric="perplexity", name="words"))
    compared, _ = comparisons(read_runs([tmp_path]).runs)
    assert [(one.metric, one.in_points, len(one.settings)) for one in compared] == [
        ("accuracy", True, 1),
        ("perplexity", False, 1),
    ]


def test_the_same_run_twice_counts_once_and_the_board_says_so(runs: Path) -> None:
    write_run(runs / "again", result(0.70, epsilon=1.0, seed=1))
    (one,), notes = comparisons(read_runs([runs]).runs)
    assert [len(setting.runs) for setting in one.settings] == [2, 2]
    assert notes == ["e1/s1 is left out: again has the same settings and the same seed."]


def with_noise(folder: Path, values: dict[tuple[int, int], float], epsilon: float = 3.0) -> None:
    """Write runs by seed and seed of the noise."""
    for (seed, noise), value in values.items():
        sections = {"seed": seed, "seeds": {"noise": noise}, "data": {"source": "letters.csv"}}
        write_run(folder / f"{epsilon}-{seed}-{noise}", result(value, epsilon=epsilon, simulation=sections))


def test_runs_that_differ_in_a_seed_of_their_noise_are_seeds_and_no_copies(tmp_path: Path) -> None:
    with_noise(tmp_path, {(1, 2): 0.70, (1, 3): 0.74})
    with_noise(tmp_path, {(1, 2): 0.60, (1, 3): 0.62}, epsilon=1.0)
    read = read_runs([tmp_path])
    (one,), notes = comparisons(read.runs)
    assert [(setting.label, len(setting.runs)) for setting in one.settings] == [("ε 1", 2), ("ε 3", 2)] and not notes
    assert one.settings[1].quality() == over_seeds([0.70, 0.74])
    difference = paired(*one.settings, higher_is_better=True)
    assert difference is not None and difference.value == pytest.approx(0.11) and difference.low is not None
    assert len(families(one.settings)) == 1 and list(differing(read.runs)) == ["privacy.epsilon"]
    assert "1 with noise 2, 1 with noise 3" in str(board_of(read.runs, [], lambda _run: None).sections)


def test_runs_that_share_a_seed_have_no_interval_and_the_board_says_so(tmp_path: Path) -> None:
    values = {(1, 3): 0.70, (1, 4): 0.74, (2, 3): 0.60, (2, 4): 0.62}
    with_noise(tmp_path, values)
    with_noise(tmp_path, values, epsilon=1.0)
    (one,), notes = comparisons(read_runs([tmp_path]).runs)
    first, other = one.settings
    intervals = first.quality(), first.minus("majority"), paired(first, other, higher_is_better=True)
    assert [each and each.low for each in intervals] == [None] * 3 and first.quality().value == pytest.approx(0.665)
    assert notes[0].startswith("ε 1 has no interval: runs that share one of their seeds") and len(notes) == 2


def test_runs_of_another_precision_are_another_setting(tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        write_run(tmp_path / name, result(0.8, performance={"precision": name, "threads": len(name)}))
    (one,), notes = comparisons(read_runs([tmp_path]).runs)
    assert [setting.label for setting in one.settings] == ["precision bfloat16", "precision float32"] and not notes


def test_a_result_that_cannot_be_read_costs_no_other_run_its_place(runs: Path) -> None:
    (runs / "e1" / "s1" / "result.json").write_text("{}")
    read = read_runs([runs])
    assert len(read.runs) == 3 and "e1/s1/result.json" in read.unreadable[0]
    assert "Not read" in board_of(read.runs, read.unreadable, lambda _run: None).notes[0]


HOSTILE_FIGURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a seed that is no number": lambda plain: plain["scenario"]["simulation"].update(seed="x"),
    "a seed that is null": lambda plain: plain["scenario"]["simulation"].update(seed=None),
    "a seed of noise that is no number": lambda plain: plain["scenario"]["simulation"].update(seeds={"noise": "x"}),
    "seeds that are a list": lambda plain: plain["scenario"]["simulation"].update(seeds=[1]),
    "no arm": lambda plain: plain["arms"].clear(),
    "no site": lambda plain: plain["privacy"].clear(),
    "no scenario": lambda plain: plain["scenario"].clear(),
    "a cost without end": lambda plain: plain["arms"]["federated"].update(epsilon=1e309),
    "a cost beyond any drawing": lambda plain: [site.update(epsilon_rdp=1e308) for site in plain["privacy"].values()],
    "figures too far apart": lambda plain: plain["rounds"][0]["evaluation"].update(value=-1e308),
}


@pytest.mark.parametrize("what", HOSTILE_FIGURES)
def test_a_result_that_cannot_be_shown_costs_no_other_run_its_place(runs: Path, what: str) -> None:
    path = runs / "e1" / "s1" / "result.json"
    plain = json.loads(path.read_text())
    HOSTILE_FIGURES[what](plain)
    path.write_text(json.dumps(plain))
    read = read_runs([runs])
    assert len(read.runs) == 3 and "e1/s1/result.json" in read.unreadable[0]
    assert board_of(read.runs, read.unreadable, lambda _run: None).sections


def test_without_any_run_it_is_said_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="got none"):
        read_runs([tmp_path])


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["privacy.epsilon=3"], 2),
        (["privacy.epsilon=3", "simulation.seed=1"], 1),
        (['study.name="letters"'], 4),
        (["study.name=x"], 0),
    ],
)
def test_a_filter_leaves_what_has_all_of_its_values(runs: Path, where: list[str], left: int) -> None:
    assert len(matching(read_runs([runs]).runs, parse_filter(where))) == left


def test_a_filter_without_a_value_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"section\.key=value"):
        parse_filter(["privacy.epsilon"])


def test_epsilon_is_drawn_against_quality_where_settings_differ_in_it(runs: Path) -> None:
    (one,), _ = comparisons(read_runs([runs]).runs)
    picture = epsilon_against_quality(one)
    assert picture is not None and "federated: 0.8" in picture.says and "WITHOUT PRIVACY" in picture.says
    assert [[setting.label for setting in family] for family in families(one.settings)] == [["ε 1", "ε 3"]]
    assert epsilon_against_quality(one._replace(settings=one.settings[:1])) is None


def test_of_many_settings_the_best_are_drawn_and_the_table_has_all(tmp_path: Path) -> None:
    for number in range(MOST_LINES + 3):
        write_run(tmp_path / str(number), result(0.5 + number / 100, adapter={"rank": number}))
    read = read_runs([tmp_path])
    (one,), _ = comparisons(read.runs)
    assert {setting.label for setting in best(one)} == {f"rank {number}" for number in range(3, MOST_LINES + 3)}
    board = board_of(read.runs, [], lambda _run: None)
    assert len(board.sections[0].blocks[0].rows) == MOST_LINES + 3  # type: ignore[union-attr]
    assert "The best 10 of 13" in str(board.sections[0].blocks)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))


def test_an_export_is_one_file_without_a_script_that_asks_for_nothing(runs: Path, tmp_path: Path) -> None:
    write_run(runs / "hostile", result(0.8, name=HOSTILE))
    out = tmp_path / "board.html"
    ran = CliRunner().invoke(cli, ["board", str(runs), "--export", str(out)])
    assert ran.exit_code == 0, ran.output
    page, tags = out.read_text(), Tags()
    tags.feed(page)
    assert "<script>alert" not in page and "alert(1)" in page and len(page) < 100_000
    assert not [tag for tag, attrs in tags.tags if tag in ("script", "link", "img") or {"src", "href"} & set(attrs)]
    assert [tag for tag, _ in tags.tags].count("svg") == 5, "epsilon, rounds, and every arm of three settings"


def test_a_folder_holds_every_report_that_its_board_links_to(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "board"
    assert (
        CliRunner().invoke(cli, ["board", str(runs), "--where", "privacy.epsilon=3", "--export", str(out)]).exit_code
        == 0
    )
    tags = Tags()
    tags.feed((out / "index.html").read_text())
    links = [attrs["href"] for tag, attrs in tags.tags if tag == "a"]
    assert links == ["report-1.html", "report-2.html"]
    assert {path.name for path in out.iterdir()} == {"index.html", *links}
    assert CliRunner().invoke(cli, ["board", str(runs), "--export", str(out)]).exit_code != 0, "it is there"
