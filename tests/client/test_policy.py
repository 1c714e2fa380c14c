"""What the operator allows."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from client.policy import DatasetPolicy, objections, open_at, readable
from client.vault.records.source import columns_read
from shared.errors import SettingsError
from shared.secure_sum.boxes import BOX_BYTES
from shared.secure_sum.context import DIGEST_BYTES
from shared.secure_sum.encoding import MOST_NAME_BYTES, MOST_NODES
from shared.secure_sum.messages import Dealt, MaskedVector
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.tasks import KINDS, Recommendation, Task
from shared.tasks.registry import task_kind
from tests.support.task_examples import EXAMPLES

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
    assert objections(policy(), study(), dimension=1000, columns=("text",)) == []


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
        ({"epsilon_per_study": 0.5}, {"privacy": {"epsilon": 1.0}}, "epsilon 1 is above what one study may spend, 0.5"),
        (
            {"study_must_state": ["purpose", "legal_basis", "contact"]},
            {"study": {"description": "Find coughs.", "contact": "office@example.org"}},
            "it does not state its legal basis, which study_must_state asks for",
        ),
        ({"readable_columns": ["label"]}, {}, "it reads 'text', which readable_columns does not list"),
    ],
)
def test_each_objection_is_said(
    study: Callable[..., Study], limits: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    (found,) = objections(policy(**limits), study(**sections), dimension=1000, columns=("text",))
    assert words in found


def test_what_one_study_may_spend_is_asked_of_approved_runs_too(study: Callable[..., Study]) -> None:
    asked = study(privacy={"epsilon": 1.0})
    for underway in (False, True):
        for most, expected in ((0.99, 1), (1.0, 0), (None, 0)):
            changes = {} if most is None else {"epsilon_per_study": most}
            reasons = objections(policy(**changes), asked, dimension=1, columns=(), underway=underway)
            assert len(reasons) == expected


@pytest.mark.parametrize("changes", [{}, {"split_by": "page"}])
def test_one_study_may_not_spend_more_by_a_unit_on_both_sides(
    study: Callable[..., Study], changes: dict[str, Any]
) -> None:
    asked = study(privacy={"epsilon": 1.0}, evaluation={"epsilon": 0.5})
    for both_sides in (False, True):
        declared = policy(epsilon_per_study=1.2, **changes)
        reasons = objections(declared, asked, dimension=1, columns=(), both_sides=both_sides)
        assert bool(reasons) == (both_sides or "split_by" in changes)


@pytest.mark.parametrize(
    ("changes", "columns", "refused"),
    [
        ({}, ["text", "label", "rating", "group"], []),
        ({}, ["text", "ssn", "hiv_status"], ["hiv_status", "ssn"]),
        ({"columns": {"user": "account"}}, ["account", "user"], ["user"]),
        ({"columns": {"text": "report"}}, ["report", "text"], ["text"]),
        ({"readable_columns": ["text", "user"]}, ["text", "user"], []),
        ({"readable_columns": ["text"]}, ["text", "label"], ["label"]),
        ({"readable_columns": []}, ["text"], ["text"]),
    ],
)
def test_a_column_that_the_operator_did_not_allow_is_refused(
    study: Callable[..., Study], changes: dict[str, Any], columns: list[str], refused: list[str]
) -> None:
    reasons = objections(policy(**changes), study(), dimension=1, columns=columns)
    named = ", ".join(map(repr, refused))
    assert reasons == ([f"it reads {named}, which readable_columns does not list"] if refused else [])


def test_ids_that_a_server_chooses_are_refused_until_the_operator_lists_them(study: Callable[..., Study]) -> None:
    task = Recommendation(kind="recommendation", rating_range=(1, 5), ids=("ssn", "hiv_status"))
    asked = study().model_copy(update={"task": task})
    for listed, refused in ((None, "'hiv_status', 'ssn'"), (["ssn"], "'hiv_status'"), (["ssn", "hiv_status"], "")):
        changes = {} if listed is None else {"readable_columns": ["text", "rating", *listed]}
        declared = policy(tasks=["recommendation"], **changes)
        reasons = objections(declared, asked, dimension=1, columns=columns_read(declared, asked))
        assert reasons == ([f"it reads {refused}, which readable_columns does not list"] if refused else [])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_kinds_name_themselves_need_no_permission(kind: str) -> None:
    task: Task = TypeAdapter(Task).validate_python({"kind": kind, **EXAMPLES[kind].declared})
    chosen = getattr(task, "ids", ())
    assert {column.name for column in task_kind(task).columns} - set(chosen) <= readable(policy())


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
        ({"unit": "patient", "unit_column": "id", "split_by": "doc"}, "split_by only goes with unit = 'record'"),
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


def test_a_node_shares_noise_only_if_its_operator_says_what_all_others_may_see(study: Callable[..., Study]) -> None:
    federation = {"secure_sum": "shared", "typical_size": 60, "rounds": 9}
    shared, masked = (
        study(federation=federation | {"secure_sum": mode}, training={"local_steps": 1})
        for mode in ("shared", "masked")
    )

    def reasons(asked: Study, **changes: Any) -> list[str]:
        return objections(policy(**changes), asked, dimension=1000, columns=("text",))

    assert reasons(shared) == [
        "its nodes share one noise, and epsilon_if_all_collude does not say what all others may see"
    ]
    assert reasons(masked) == [] == reasons(shared, epsilon_if_all_collude=9)
    assert policy(epsilon_if_all_collude="no-limit").limit_if_all_collude == float("inf")
    assert policy(epsilon_if_all_collude=9).limit_if_all_collude == 9.0 and policy().limit_if_all_collude is None
    for wrong in (0, -1.0, float("inf"), float("nan"), "any"):
        with pytest.raises(SettingsError, match="epsilon_if_all_collude"):
            policy(epsilon_if_all_collude=wrong)


def test_a_summand_of_a_secure_sum_counts_with_what_is_dealt_to_the_largest_roster(
    study: Callable[..., Study],
) -> None:
    dealt = (Dealt(bytes(DIGEST_BYTES), bytes(BOX_BYTES)),) * MOST_NODES
    longest = MaskedVector(bytes(32), "x" * MOST_NAME_BYTES, bytes(32), dealt, np.zeros(1000, np.uint64)).to_bytes()
    assert len(longest) > 8000 + 100 * MOST_NODES
    for mode, size in (("masked", len(longest)), (None, 4000)):
        asked = study(federation={} if mode is None else {"secure_sum": mode})
        assert objections(policy(largest_update_bytes=size), asked, dimension=1000, columns=("text",)) == []
        (reason,) = objections(policy(largest_update_bytes=size - 1), asked, dimension=1000, columns=("text",))
        assert f"an update of {size} bytes" in reason
