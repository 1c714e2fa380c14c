"""A mistyped key is answered with the key that was meant, wherever it stands."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.study.parsing import parse, read_toml
from simulations.experiment.scenario import Scenario

DECLARED: dict[str, Any] = {
    "study": {"name": "x"},
    "model": {"source": "bundled:minilm"},
    "task": {"kind": "sequence-classification", "labels": ["a", "b"]},
    "privacy": {"epsilon": 1.0},
    "simulation": {"data": {"source": "a.csv", "partition": {"by": "iid", "sites": 3}}},
}
MEANT = {
    "trainig": "training",
    "study.nmae": "name",
    "task.max_lenght": "max_length",
    "privacy.samplingrate": "sampling_rate",
    "simulation.data.Colums": "columns",
    "simulation.data.partition.site": "sites",
}


@pytest.mark.parametrize("place", MEANT)
def test_the_nearest_key_is_offered(place: str) -> None:
    declared = {**DECLARED, "simulation": {"data": {"source": "a.csv", "partition": {"by": "iid", "sites": 3}}}}
    *sections, key = place.split(".")
    section = declared
    for name in sections:
        section[name] = dict(section.get(name, {}))
        section = section[name]
    section[key] = 1
    with pytest.raises(SettingsError, match=f"{key}: no such key. Perhaps '{MEANT[place]}' is meant."):
        parse(Scenario, declared, where="s.toml")


def test_a_file_of_brackets_within_brackets_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_toml(tmp_path / "study.toml")
