"""Names of sites and arms inside the names of MLflow's metrics."""

import pytest

from simulations.results.curves import unlike_names

NAMES = ["north", "a/b", "a_b", "a:b", "..", ".", "", "Spital Zürich", "<b>&\"'", "x" * 300, "x" * 299, "a_b-2", "a\nb"]


def test_mlflow_takes_every_name_and_no_two_are_alike() -> None:
    validation = pytest.importorskip("mlflow.utils.validation")
    safe = unlike_names(NAMES)
    assert list(safe) == NAMES and len(set(safe.values())) == len(NAMES)
    for name in safe.values():
        validation._validate_metric_name(f"sites/{name}/accuracy")
        assert len(name) < 110
    assert safe["north"] == "north" and safe["Spital Zürich"] == "Spital Zürich" and safe["a/b"] == "a_b"
