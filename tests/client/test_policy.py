"""What the operator allows."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from client.policy import DatasetPolicy, objections, open_at
from shared.errors import SettingsError
from shared.study.declaration import Study
from shared.study.parsing import parse

FINGERPRINT = "a" * 64
Studies = Callable[..., Study]


def policy(**changes: Any) -> DatasetPolicy:
    declared = {"source": "x.csv", "epsilon": 4.0, "delta": 1e-5, "declared_size": 8500, "models": [FINGERPRINT]}
    return parse(DatasetPolicy, declared | changes, where="node.toml")


@pytest.fixture
def study(make_study: Studies) -> Callable[..., Study]:
    def make(**sections: Any) -> Study:
        model = sections.pop("model", {"fingerprint": FINGERPRINT})
        federation = {"quorum": 3} | sections.pop("federation", {})
        return make_study(model=model, federation=federation, **sections)

    return make


def test_a_study_within_the_policy_has_no_objections(study: Callable[..., Study]) -> None:
    assert objections(policy(), study(), dimension=1000) == []


@pytest.mark.parametrize(
    ("limits", "sections", "words"),
    [
        ({"tasks": ["translation"]}, {}, "task 'sequence-classification'"),
        ({}, {"model": {}}, "not pinned"),
        ({}, {"model": {"fingerprint": "b" * 64}}, "not pinned"),
        ({}, {"privacy": {"delta": 1e-3}}, "delta 0.001 is above 1e-05"),
        ({}, {"privacy": {"epsilon": 5.0}}, "epsilon 5 is above"),
        ({}, {"federation": {"quorum": 2}}, "quorum of 2 is below 3"),
        ({}, {"federation": {"smallest_declared_size": 9000}}, "asks for 9000 records"),
        ({"largest_update_bytes": 3999}, {}, "4000 bytes is above 3999"),
    ],
)
def test_each_objection_is_said(
    study: Callable[..., Study], limits: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    (found,) = objections(policy(**limits), study(**sections), dimension=1000)
    assert words in found


@pytest.mark.parametrize(
    ("hours", "days", "now", "expected"),
    [
        ("00:00-00:00", ["mon"], "2026-11-23 13:00", True),
        ("00:00-00:00", ["tue"], "2026-11-23 13:00", False),
        ("08:00-18:00", ["mon"], "2026-11-23 07:59", False),
        ("08:00-18:00", ["mon"], "2026-11-23 08:00", True),
        ("08:00-18:00", ["mon"], "2026-11-23 18:00", False),
        ("22:00-06:00", ["mon"], "2026-11-23 23:00", True),
        ("22:00-06:00", ["mon"], "2026-11-24 05:59", True),
        ("22:00-06:00", ["mon"], "2026-11-24 06:00", False),
        ("22:00-06:00", ["mon"], "2026-11-23 05:00", False),
    ],
)
def test_days_and_hours(hours: str, days: list[str], now: str, expected: bool) -> None:
    assert open_at(policy(hours=hours, days=days), datetime.fromisoformat(now)) is expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hours": "8-18"}, "22:00-06:00"),
        ({"models": ["minilm"]}, "fingerprints"),
        ({"models": []}, "models"),
        ({"declared_size": 8473}, "two digits, as in 8500"),
        ({"delta": 1e-3}, "below 1/declared_size"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"approval": "always"}, "approval"),
        ({"no_privacy": True}, "no_privacy: no such key"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_keys_path(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        policy(**changes)
