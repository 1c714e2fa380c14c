"""The rules of `make extras`, on releases that are made up: what they catch and what they let pass."""

from datetime import UTC, datetime
from typing import Any

import pytest
from packaging.version import Version

from tests.support.extras import Release, broken_rules, read_lock

DAYS = {
    "1.27.0": "2022-06-29",
    "3.0.0": "2025-06-10",
    "3.9.0": "2025-11-20",
    "3.17.2": "2026-10-02",
    "3.18.0": "2026-11-03",
}


def release(version: str, day: str = "2026-10-01") -> Release:
    return Release(Version(version), datetime.fromisoformat(DAYS.get(version, day)).replace(tzinfo=UTC))


def check(requirement: str, mlflow: str, *, pyarrow: str = "26.0.1") -> list[str]:
    """An extra with one requirement, which resolves to this mlflow, beside a project that needs pyarrow."""
    project = {"dependencies": ["pyarrow>=21"], "optional-dependencies": {"tracking": [requirement]}}
    alone = {"pyarrow": release("26.0.1")}
    beside = {"pyarrow": release(pyarrow), "mlflow": release(mlflow)}
    newest = {"pyarrow": release("26.0.1"), "mlflow": release("3.18.0")}
    return broken_rules(project, lambda extra: beside if extra else alone, newest)


@pytest.mark.parametrize(
    ("requirement", "version"),
    [("mlflow>=3", "3.18.0"), ("mlflow>=3", "3.17.2"), ("MLflow[genai]>=3.1,<4", "3.9.0"), ("mlflow>=3.0", "3.0.0")],
)
def test_the_newest_one_of_this_year_and_one_of_the_bounds_family_pass(requirement: str, version: str) -> None:
    assert check(requirement, version) == []


@pytest.mark.parametrize("requirement", ["mlflow", "mlflow<4", "mlflow!=2"])
def test_a_requirement_without_a_lower_bound_is_named(requirement: str) -> None:
    assert check(requirement, "3.18.0") == [f"[tracking] {requirement} has no lower bound"]


@pytest.mark.parametrize("requirement", ["mlflow>=1", "mlflow>=1.2,<4"])
def test_a_release_of_years_ago_is_named_with_the_one_that_it_stands_for(requirement: str) -> None:
    (line,) = check(requirement, "1.27.0")
    assert line == (f"[tracking] {requirement} resolves to 1.27.0 of 2022-06-29, although 3.18.0 of 2026-11-03 exists")
    assert len(check("mlflow", "1.27.0")) == 2, "no lower bound, and years old"


def test_an_extra_that_holds_the_project_back_is_named() -> None:
    (line,) = check("mlflow>=3", "3.17.2", pyarrow="25.0.1")
    assert line == "[tracking] makes pyarrow resolve to 25.0.1, and without it 26.0.1 is installed"


def test_the_projects_own_requirements_are_held_to_the_same_rules() -> None:
    project: dict[str, Any] = {"dependencies": ["click<8.5", "mlflow>=1"], "optional-dependencies": {}}
    resolved = {"click": release("8.4.2"), "mlflow": release("1.27.0")}
    lines = broken_rules(project, lambda extra: resolved, {"click": release("8.4.2"), "mlflow": release("3.18.0")})
    assert [line.split()[0] for line in lines] == ["click<8.5", "mlflow>=1"]


def test_a_release_is_as_old_as_its_first_file() -> None:
    early, late = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 5, 6, tzinfo=UTC)
    files = {"wheels": [{"upload-time": late}, {"upload-time": early}], "sdist": {"upload-time": late}}
    assert read_lock({"packages": [{"name": "Psycopg_Binary", "version": "3.3.9", **files}]}) == {
        "psycopg-binary": Release(Version("3.3.9"), early)
    }
