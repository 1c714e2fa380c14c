"""`fedvault-sim audit` says which claims hold and which faults it catches, and fails if one escapes."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from shared.errors import SettingsError
from shared.evidence.audit_result import read_audit, sentences
from shared.pages.html_page import escaped
from simulations.audit.audit import Audit
from simulations.audit.audited_site import Claim
from simulations.audit.claims import HONEST, Row, audits, table
from simulations.audit.command import audit_claims, audit_file
from simulations.audit.one_run_bound import Guesses
from simulations.audit.scenario_audit import attacks, audit_scenario, audit_study
from simulations.experiment.scenario import load
from simulations.progress import SilentProgress
from simulations.results.model_card import card
from simulations.results.report import write_report
from simulations.results.result import read_result
from simulations.run import Run
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

SCENARIO = """
[study]
name = "small"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[adapter]
method = "head-only"
[privacy]
epsilon = 1.0
sampling_rate = 0.5
[training]
local_steps = 1
[federation]
rounds = 2
smallest_declared_size = 20
[simulation]
arms = ["federated", "audit"]
[simulation.data]
source = "table.csv"
partition = {{ by = "iid", sites = 2 }}
"""


@pytest.fixture
def file(tmp_path: Path, tiny_bert: Path) -> Path:
    generator, rows = np.random.default_rng(0), []
    for number in range(120):
        words = " ".join(f"word{each}" for each in generator.integers(0, 60, 8))
        rows.append((words, ("no", "yes")[number % 2]))
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "small.toml").write_text(SCENARIO.format(model=tiny_bert))
    return tmp_path / "small.toml"


def test_each_claim_is_audited_by_unit_and_whitening_and_with_each_fault(tmp_path: Path) -> None:
    rows = list(audits([Claim(3.0, sampling_rate=1.0, rounds=2, canaries=320)], tmp_path))
    variants = [(row.audit.claim.unit, row.audit.claim.whitening) for row in rows if row.code == HONEST]
    assert variants == [("record", False), ("record", True), ("patient", False), ("patient", True)]
    assert [row.code for row in rows[4:]] == ["half the noise", "no clipping", "one seed twice"]
    console = Console(width=200)
    with console.capture() as printed:
        console.print(table(rows))
    assert "one seed twice" in printed.get() and "no power" in printed.get(), (
        "so few canaries cannot see half the noise"
    )


@pytest.mark.parametrize(
    ("code", "at_least", "power_of_half", "expected"),
    [
        (HONEST, 1.5, 4.0, True),
        (HONEST, 3.1, 4.0, False),
        (HONEST, 3.1, 2.0, False),
        (HONEST, 1.5, 2.0, True),
        ("no clipping", 3.1, 4.0, True),
        ("no clipping", 2.9, 4.0, False),
        ("no clipping", 2.9, 2.0, True),
    ],
)
def test_a_refuted_claim_and_a_fault_that_passes_are_unexpected(
    code: str, at_least: float, power_of_half: float, expected: bool
) -> None:
    passing = Audit(Claim(3.0), Guesses(5000, 500, 400), 0.0, 0.0, 1.8, 0.0)
    one = replace(passing, epsilon_at_least=at_least, power_of_half=power_of_half)
    assert Row(code, one).as_expected == expected


@pytest.mark.slow
def test_claims_hold_and_faults_are_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """What a release is audited by; under three minutes."""
    threads = torch.get_num_threads()
    assert audit_claims(None, 5000, as_json=True)
    torch.set_num_threads(threads)
    rows = json.loads(capsys.readouterr().out)
    faulty = {(row["code"], row["claim"]["epsilon"]): row["verdict"] for row in rows if row["code"] != HONEST}
    assert all(verdict == "refuted" for (_, epsilon), verdict in faulty.items() if epsilon < 8), faulty


def test_a_scenario_is_audited_and_its_audit_is_in_json(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeded = partial(audit_study, randomness=partial(SeededRandomnessForSimulation, 5))
    monkeypatch.setattr("simulations.audit.scenario_audit.audit_study", seeded)
    assert audit_file(file, [], file.parent / "out", canaries=320, adapters=4, as_json=False)
    audited = read_audit(file.parent / "out" / "audit.json")
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in sentences(audited))
    assert audited.canaries is not None and audited.membership is not None
    assert audited.study_sha256 == load(file).as_study().sha256
    assert (audited.canaries.steps, audited.canaries.sampling_rate) == (2, 0.5)
    assert [one.fault for one in audited.canaries.controls][1:] == [
        "no clipping",
        "one seed twice",
        "a divisor from the data",
    ]


def test_a_run_with_the_arm_has_the_audit_in_result_report_and_card(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("simulations.run.audit_scenario", partial(audit_scenario, canaries=320, adapters=4))
    steps: list[None] = []
    monkeypatch.setattr(SilentProgress, "step", lambda _progress: steps.append(None))
    scenario, folder = load(file), file.parent / "run"
    run = Run(scenario, file.parent / "table.csv", folder, SilentProgress())
    run.open(resume=False)
    result = run.execute()
    assert result.audit is not None and "audit" not in result.arms
    assert len(steps) >= attacks(4)
    assert read_result(folder / "result.json").audit == result.audit == read_audit(folder / "audit.json")
    write_report(result, folder / "report.html")
    page = (folder / "report.html").read_text()
    for sentence in sentences(result.audit):
        assert escaped(sentence) in page and sentence in card(scenario, result, "f" * 64)
    capsys.readouterr()
    audit_file(file, [], folder, canaries=640, adapters=4, as_json=True)
    again = read_result(folder / "result.json").audit
    assert again is not None and again.canaries is not None and again.canaries.canaries == 640
    assert json.loads(capsys.readouterr().out)["canaries"]["canaries"] == 640
    monkeypatch.setattr("simulations.audit.command.audit_scenario", lambda *_, **__: pytest.fail("it was attacked"))
    before = (folder / "result.json").read_bytes()
    with pytest.raises(SettingsError, match="Expected a run of study"):
        audit_file(file, ["privacy.epsilon=2"], folder, canaries=320, adapters=4, as_json=False)
    assert (folder / "result.json").read_bytes() == before, "a run of another study is left alone"
