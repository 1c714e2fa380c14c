"""The registry of aggregation methods: who names one, and where a name is checked."""

from pathlib import Path
from typing import Any

import pytest

from server.aggregation.method import METHODS, method_for
from server.app import build_server_app
from server.forecast.forecast import forecast_study
from shared.adapted_model.model import layout_of
from shared.errors import SettingsError
from shared.study.declaration import Study, recorded
from simulations.experiment.scenario import load

SCENARIO = """
[study]
name = "s"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
[simulation.data]
source = "table.csv"
"""


def test_a_node_takes_any_name_and_a_server_says_which_ones_it_knows(make_study: Any, tmp_path: Path) -> None:
    study: Study = make_study(federation={"aggregation": "trimmed-mean"})
    assert recorded(study.model_dump(mode="json"), where="offer") == study
    for started in (
        lambda: method_for(study),
        lambda: forecast_study(study, layout_of(study), {"node 1": 300}),
        lambda: build_server_app(
            study,
            "r",
            tmp_path,
            initial=None,
            on_done=print,
            largest_norm=lambda _number: 1.0,  # type: ignore[arg-type]
        ),
    ):
        with pytest.raises(SettingsError, match=r"geometric-median, or an installed plug-in, got 'trimmed-mean'\."):
            started()


def test_a_simulation_refuses_a_name_before_it_opens_data(tiny_bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO.format(model=tiny_bert))
    assert load(file).federation.aggregation == "ffa"
    with pytest.raises(SettingsError, match="geometric-median, or an installed plug-in, got 'median'"):
        load(file, ["federation.aggregation=median"])


@pytest.mark.parametrize(("method", "right"), [(m, name) for name in METHODS for m in METHODS[name].adapters])
def test_a_method_goes_with_the_adapters_that_it_is_meant_for(make_study: Any, method: str, right: str) -> None:
    assert method_for(make_study(adapter={"method": method}, federation={"aggregation": right})) == METHODS[right]
    for wrong in (name for name in METHODS if method not in METHODS[name].adapters):
        with pytest.raises(SettingsError, match=f"Expected federation.aggregation = .*'{right}'.*, got '{wrong}'"):
            method_for(make_study(adapter={"method": method}, federation={"aggregation": wrong}))


def test_a_secure_sum_takes_no_method_that_needs_the_updates_themselves(make_study: Any) -> None:
    federation = {"aggregation": "geometric-median", "secure_sum": "masked"}
    with pytest.raises(SettingsError, match=r"sums alone beside federation\.secure_sum, got 'geometric-median'"):
        method_for(make_study(federation=federation))


@pytest.mark.parametrize("name", ["", "FFA", "a b", "x" * 41, "../x", 3])
def test_a_name_is_a_plain_word(make_study: Any, name: Any) -> None:
    with pytest.raises(SettingsError, match=r"federation\.aggregation"):
        make_study(federation={"aggregation": name})
