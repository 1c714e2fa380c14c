"""Which runs a sweep has, and mistakes in what was typed."""

import pytest

from shared.errors import SettingsError
from simulations.sweeps.cells import Axis, cells_of, named, read_axis


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("privacy.epsilon=1,3,8", ("1", "3", "8")),
        ("simulation.seed=1..3", ("1", "2", "3")),
        ("simulation.arms=['federated'],['federated','pooled']", ("['federated']", "['federated','pooled']")),
        ('study.name="a,b", c', ('"a,b"', "c")),
        ("simulation.data.partition={by='iid', sites=3}", ("{by='iid', sites=3}",)),
    ],
)
def test_values_stand_between_commas_outside_brackets_and_quotes(typed: str, values: tuple[str, ...]) -> None:
    assert read_axis(typed).values == values


def test_every_combination_is_one_cell_with_a_folder_of_its_own() -> None:
    cells = cells_of([read_axis("privacy.epsilon=1,3"), read_axis("simulation.seed=1..5")])
    assert len(cells) == len({cell.folder for cell in cells}) == 10
    assert {cell.setting for cell in cells} == {(("privacy.epsilon", "1"),), (("privacy.epsilon", "3"),)}
    assert cells[0].changes == ("privacy.epsilon=1", "simulation.seed=1") and named(cells[0].setting) == "epsilon=1"
    assert cells[0].folder.startswith("epsilon=1,seed=1-")


def test_hostile_values_stay_within_one_folder() -> None:
    (cell,) = cells_of([Axis("study.name", ("../../up/" + "x" * 300,))])
    assert "/" not in cell.folder and len(cell.folder) < 80 and not cell.folder.startswith(".")


@pytest.mark.parametrize("typed", ["", "privacy.epsilon", "epsilon=1", "privacy.epsilon=", "a b.c=1", "=1"])
def test_what_is_no_axis_is_said(typed: str) -> None:
    with pytest.raises(SettingsError, match=r"Expected --over section\.key"):
        read_axis(typed)


@pytest.mark.parametrize(
    ("typed", "words"),
    [("a.b=1,1", "different values"), ("a.b=1,,2", "different values"), ("a.b=5..1", "counts up"),
     ("a.b=0..99999999", "counts up")],
)  # fmt: skip
def test_values_that_make_no_sweep_are_said(typed: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_axis(typed)


def test_a_key_comes_once_and_combinations_are_bounded() -> None:
    axis = read_axis("privacy.epsilon=1,3")
    for axes, changes in (([axis, axis], ()), ([axis], ("privacy.epsilon=2",))):
        with pytest.raises(SettingsError, match=r"each key once in --over and --set, got privacy\.epsilon"):
            cells_of(axes, changes)
    with pytest.raises(SettingsError, match="at least one --over"):
        cells_of([])
    with pytest.raises(SettingsError, match="at most 10,000 runs"):
        cells_of([read_axis("a.b=1..200"), read_axis("a.c=1..200")])


def test_seeds_are_not_crossed_since_runs_that_share_one_are_no_repeats() -> None:
    seeds, noise = read_axis("simulation.seed=1..5"), read_axis("simulation.seeds.noise=1..5")
    with pytest.raises(
        SettingsError, match=r"one key of seeds in a sweep, got simulation.seed and simulation.seeds.no"
    ):
        cells_of([seeds, noise])
    assert len(cells_of([seeds, read_axis("simulation.seeds.split=7")])) == 5, "one split for all is none that varies"
