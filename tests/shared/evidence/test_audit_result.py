"""An audit's result is read back as it was written, and says in sentences what was shown."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.evidence.audit_result import (
    AuditResult,
    CanaryAudit,
    Control,
    Hits,
    MembershipAttack,
    read_audit,
    sentences,
    write_audit,
)

CONTROL = Control(
    fault="a third of the noise",
    sampling_rate=0.1,
    steps=48,
    epsilon_if_ideal=3.8,
    must_be_caught=True,
    epsilon_at_least=3.7,
    caught=True,
)


def canaries(**changes: Any) -> CanaryAudit:
    audit = CanaryAudit(
        epsilon_stated=3.0,
        delta=1e-5,
        unit="record",
        sampling_rate=0.1,
        steps=48,
        canaries=5000,
        guesses=500,
        correct=350,
        epsilon_at_least=0.9,
        epsilon_at_least_any=0.7,
        epsilon_if_ideal=1.0,
        controls=(CONTROL,),
    )
    return audit.model_copy(update=changes)


MEMBERSHIP = MembershipAttack(
    site="clinic",
    unit="patient",
    units=400,
    adapters=9,
    private=Hits(rate=0.011, low=0.008, high=0.015),
    without_privacy=Hits(rate=0.25, low=0.22, high=0.28),
    most=0.2,
)


def result(**parts: Any) -> AuditResult:
    return AuditResult(fedvault_version="0.1.0", date="2026-01-31", study_sha256="a" * 64, **parts)


def test_a_result_is_read_back(tmp_path: Path) -> None:
    written = result(canaries=canaries(), membership=MEMBERSHIP)
    write_audit(tmp_path / "audit.json", written)
    assert read_audit(tmp_path / "audit.json") == written


def test_what_was_shown_is_said_in_sentences() -> None:
    text = " ".join(sentences(result(canaries=canaries(), membership=MEMBERSHIP)))
    for part in (
        "epsilon at most 3.0. Observed: at least 0.9",
        "by 5,000 planted records",
        "such an attack shows 1.0",
        "were caught: a third of the noise (3.7)",
        "8 shadow adapters",
        "recognises 1.1 % (0.8 to 1.5)",
        "without privacy it is 25.0 % (22.0 to 28.0)",
        "allows 20.0 %",
        "on 2026-01-31, FedVault 0.1.0",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changes", "passed", "says"),
    [
        ({}, True, "the promise stands"),
        ({"epsilon_at_least": 3.1}, False, "REFUTED"),
        ({"epsilon_by_size": 3.1}, False, "REFUTED"),
        ({"controls": (CONTROL.model_copy(update={"caught": False}),)}, False, "NOT caught"),
        (
            {"controls": (CONTROL.model_copy(update={"caught": False, "must_be_caught": False}),)},
            True,
            "cannot be relied on to see: a third of the noise (shows 3.8)",
        ),
    ],
)
def test_a_refuted_promise_and_an_escaped_fault_do_not_pass(changes: dict[str, Any], passed: bool, says: str) -> None:
    audit = canaries(**changes)
    assert audit.passed == passed
    assert says in " ".join(sentences(result(canaries=audit)))


@pytest.mark.parametrize("content", [None, b"{", b'{"schema_version": 2}'])
def test_another_file_is_no_result(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "audit.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="Expected"):
        read_audit(path)
