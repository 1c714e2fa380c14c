"""Canaries through the node's own training: it keeps its claims, and faults that are put in are caught."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from client.vault.training.randomness import Randomness
from shared.errors import SettingsError
from shared.evidence.audit_result import AuditResult, CanaryAudit, sentences
from simulations.audit import scenario_audit
from simulations.audit.audit import Audit, audit, ideal_bounds
from simulations.audit.audited_site import Claim, study_of
from simulations.audit.canaries import LENGTH, Canaries
from simulations.audit.controls import divisor_from_the_data, one_seed_twice, part_of_the_noise, without_clipping
from simulations.audit.lone_record import guess_by_size
from simulations.audit.one_run_bound import Guesses, epsilon_of_gaussian
from simulations.audit.scenario_audit import audit_study, faults_for
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

SHORT = {"sampling_rate": 1.0, "rounds": 2, "canaries": 5000}
LONG = {"sampling_rate": 0.5, "rounds": 24, "canaries": 10_000}
FAULTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "half the noise": partial(part_of_the_noise, 2),
    "no clipping": without_clipping,
    "one seed twice": nullcontext,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


def seeded(number: int) -> Randomness:
    """A round's randomness, so that no test fails by chance."""
    return SeededRandomnessForSimulation(5, number)


def honest(claim: Claim, folder: Path) -> Audit:
    report = audit(claim, folder, seed=1, randomness=seeded)
    assert not report.refuted
    assert report.epsilon_at_least_any <= report.epsilon_at_least
    # two-sided: canaries that were not trained on, or twice the noise, would show far less than the ideal mechanism
    assert report.epsilon_at_least == pytest.approx(report.power, rel=0.4, abs=0.25)
    return report


@pytest.mark.parametrize(
    ("epsilon", "unit", "whitening"), [(1.0, "record", False), (3.0, "patient", False), (3.0, "record", True)]
)
def test_training_keeps_its_claim(folder: Path, epsilon: float, unit: str, whitening: bool) -> None:
    assert honest(Claim(epsilon, unit=unit, whitening=whitening, **SHORT), folder).verdict == "passes"


def test_at_epsilon_8_the_audit_says_what_it_could_see(folder: Path) -> None:
    report = honest(Claim(8.0, **SHORT), folder)
    assert report.verdict == "no power" and 4 < report.power < report.power_of_half < 8


@pytest.mark.slow
@pytest.mark.parametrize("whitening", [False, True])
@pytest.mark.parametrize("unit", ["record", "patient"])
@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_training_on_samples_keeps_its_claim(folder: Path, epsilon: float, unit: str, whitening: bool) -> None:
    honest(Claim(epsilon, unit=unit, whitening=whitening, **LONG), folder)


@pytest.mark.parametrize("size", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"])
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(folder: Path, fault: str, epsilon: float, size: dict[str, float]) -> None:
    """Half the noise is caught in 94 of 100 short runs at ε = 1, in 99 of 100 others, and so are the other faults."""
    claim = Claim(epsilon, **size)
    with FAULTS[fault]():
        report = audit(claim, folder, seed=1, randomness=one_seed_twice(5) if fault == "one seed twice" else seeded)
    assert report.verdict == "refuted"


@pytest.mark.parametrize(("epsilon", "runs"), [(3.0, 80), pytest.param(8.0, 400, marks=pytest.mark.slow)])
def test_a_divisor_from_the_data_shows_in_the_size_of_what_a_tiny_site_releases(
    folder: Path, epsilon: float, runs: int
) -> None:
    honest = guess_by_size(Claim(epsilon), folder, seed=1, randomness=seeded, runs=runs)
    assert epsilon_of_gaussian(honest, delta=1e-5) < min(1.0, epsilon)
    with divisor_from_the_data():
        counted = guess_by_size(Claim(epsilon), folder, seed=1, randomness=seeded, runs=runs)
    assert counted.correct == counted.guessed and epsilon_of_gaussian(counted, delta=1e-5) > epsilon


def test_an_update_that_is_rounded_for_the_wire_keeps_its_claim(folder: Path) -> None:
    honest(Claim(1.0, wire="int8", **SHORT), folder)


def test_a_study_is_audited_under_its_own_schedule_and_faults_where_they_show(folder: Path) -> None:
    study = study_of(Claim(3.0, sampling_rate=0.4, rounds=4, clipping="flat", canaries=320), folder)
    report = audit_study(study, folder, randomness=seeded)
    assert report.passed and 0.5 < report.epsilon_at_least < 2
    assert (report.sampling_rate, report.steps, report.epsilon_stated) == (0.4, 4, 3.0)
    assert [(one.fault, one.steps, one.caught) for one in report.controls] == [
        ("half of the noise", 8, True),
        ("no clipping", 4, True),
        ("one seed twice", 8, True),
        ("a divisor from the data", 1, True),
    ]


def test_a_fault_that_one_attack_misses_by_chance_is_attacked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, tried = Claim(3.0, sampling_rate=0.4, rounds=4, canaries=320), []

    def missed_once(tested: Claim, _folder: Path, *, seed: int, **_: object) -> Audit:
        tried.append(seed)
        return Audit(tested, Guesses(320, 30, 20), 2.9 if seed == 1 else 3.1, 0.0, 1.8, 4.0)

    monkeypatch.setattr("simulations.audit.scenario_audit.audit", missed_once)
    report = audit_study(study_of(claim, folder), folder, randomness=seeded)
    assert report.epsilon_at_least == 2.9 and tried[:3] == [1, 1, 2], "the honest attack stands as it is"
    assert all(one.caught for one in report.controls if one.must_be_caught)


def test_where_no_fault_of_noise_can_be_caught_none_is_put_in() -> None:
    faults = faults_for(Claim(8.0, sampling_rate=0.4, rounds=4))
    assert [fault.words for fault in faults if fault.shows] == []
    assert max(np.mean(fault.bounds) for fault in faults) == pytest.approx(7.98, abs=0.02)


def test_ideal_bounds_of_one_seed_twice_are_those_of_samples_without_noise() -> None:
    whole = Claim(3.0, sampling_rate=1.0, rounds=8)
    assert np.mean(ideal_bounds(whole, seed_twice=True)) == pytest.approx(7.98, abs=0.02), "every guess is right"
    assert np.mean(ideal_bounds(replace(whole, rounds=1), seed_twice=True)) == pytest.approx(
        np.mean(ideal_bounds(replace(whole, rounds=1))), abs=1e-9
    ), "of a single round there is no second"


def test_at_a_tenth_of_the_records_half_the_noise_would_not_be_seen() -> None:
    bounds = ideal_bounds(Claim(3.0, sampling_rate=0.1, rounds=48, canaries=5000), noise=0.5)
    assert np.mean(bounds) == pytest.approx(2.5, abs=0.2)


def test_directions_are_orthonormal_and_are_found_again() -> None:
    canaries = Canaries(130, seed=0)
    gradients = canaries.gradients(np.arange(130), 300) / LENGTH
    np.testing.assert_allclose(gradients @ gradients.T, np.eye(130), atol=1e-6)
    scores = canaries.scores(gradients[7].astype(np.float64))
    np.testing.assert_allclose(scores, np.eye(130)[7], atol=1e-6)
    canaries.sign = -1.0
    turned = canaries.gradients(np.array([7]), 300)[0] / LENGTH
    np.testing.assert_allclose(canaries.scores(turned.astype(np.float64)), scores, atol=1e-6)


def test_more_canaries_than_trained_numbers_are_refused() -> None:
    with pytest.raises(SettingsError, match="at most 256 canaries"):
        Canaries(300, seed=0).gradients(np.array([0]), 300)


@pytest.mark.parametrize(
    ("epsilon", "right", "says"),
    [
        (8.0, [200], "were caught: a divisor from the data (8.4)"),
        (8.0, [199, 200], "were caught: a divisor from the data (8.4)"),
        (8.0, [199, 199], "were NOT caught: a divisor from the data (7.2)"),
        (9.0, [], "cannot be relied on to see: a divisor from the data (shows 8.4)"),
    ],
)
def test_a_divisor_is_tried_twice_and_where_no_attack_sees_it_this_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, epsilon: float, right: list[int], says: str
) -> None:
    """With every guess right, 400 sites show 8.37; training under epsilon 8 was guessed right 16 times of 16."""
    tries = iter(right)
    monkeypatch.setattr(scenario_audit, "guess_by_size", lambda *_, **__: Guesses(400, 200, next(tries)))
    control = scenario_audit._control_by_size(Claim(epsilon), tmp_path, 1, seeded)
    audited = CanaryAudit(
        epsilon_stated=epsilon,
        delta=1e-5,
        unit="record",
        sampling_rate=0.1,
        steps=48,
        canaries=5000,
        guesses=500,
        correct=300,
        epsilon_at_least=0.5,
        epsilon_at_least_any=0.4,
        epsilon_if_ideal=1.0,
        controls=(control,),
    )
    result = AuditResult(fedvault_version="0", date="2026-11-29", study_sha256="a" * 64, canaries=audited)
    assert says in " ".join(sentences(result))
    assert next(tries, None) is None, "all tries were needed"
