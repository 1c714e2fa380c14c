"""Results of simulations as `fedvault-sim run` writes them, with what a test chooses."""

from pathlib import Path
from typing import Any

from simulations.results.result import (
    ArmResult,
    Bytes,
    Difference,
    Quality,
    Result,
    RoundResult,
    SiteData,
    SitePrivacy,
    WorstSite,
    write_result,
)


def quality(value: float, metric: str = "accuracy") -> Quality:
    """Return one figure, the same at both sites but for a little."""
    per_site = {"north": value + 0.01, "south": value - 0.01}
    return Quality(
        metric=metric,
        higher_is_better=metric == "accuracy",
        value=value,
        metrics={metric: value},
        per_site=per_site,
        worst_site=WorstSite(site="south", value=value - 0.01),
    )


def spent(epsilon: float) -> SitePrivacy:
    """Return what a site of `result` spent."""
    return SitePrivacy(
        epsilon_rdp=epsilon,
        epsilon_prv=None,
        delta=1e-5,
        noise_multiplier=1.5,
        sampling_rate=0.1,
        steps=6,
        unit="record",
        adjacency="add or remove one",
        sampling="Poisson",
        accountant="RDP",
        clipping="automatic",
        clip_norm=1.0,
        declared_size=100,
        seeded_noise=True,
    )


def arm(title: str, figure: Quality, epsilon: float | None, *, private: bool = True, steps: int = 6) -> ArmResult:
    """Return what an arm of `result` came to."""
    return ArmResult(
        title=title,
        private=private,
        epsilon=epsilon,
        rows=100,
        units=100,
        sampling_rate=0.1,
        steps=steps,
        seconds=2.0,
        quality=figure,
    )


def round_result(number: int, figure: Quality) -> RoundResult:
    """Return a round of `result` that both sites took part in."""
    return RoundResult(
        round=number,
        outcome="aggregated",
        seconds=1.0,
        accepted=2,
        rejected=[],
        refused=[],
        missing=[],
        evaluation=figure,
    )


def result(
    value: float,
    *,
    epsilon: float = 3.0,
    seed: int = 1,
    name: str = "letters",
    without_privacy: float = 0.9,
    metric: str = "accuracy",
    **scenario: Any,
) -> Result:
    """Return a result of two rounds and three arms."""
    arms = {
        "majority": arm("majority class", quality(0.5, metric), None, steps=0),
        "federated": arm("federated", quality(value, metric), epsilon),
        "without-privacy": arm("WITHOUT PRIVACY", quality(without_privacy, metric), None, private=False),
    }
    of_records = {
        other: Difference(value=value - arms[other].quality.value, low=-0.1, high=0.1, unit="record", units=200)
        for other in ("majority", "without-privacy")
    }
    sections: dict[str, Any] = {
        "study": {"name": name},
        "privacy": {"epsilon": epsilon},
        "simulation": {"seed": seed, "data": {"source": "letters.csv"}},
        "performance": {"threads": seed},
    }
    site = SiteData(rows=120, train=100, units=100, holdout=20, evaluated=20, dropped=0, unusable=0)
    return Result(
        fedvault_version="0",
        study_sha256="a" * 64,
        scenario=sections | scenario,
        rounds=[round_result(1, quality(value - 0.1, metric)), round_result(2, quality(value, metric))],
        final=quality(value, metric),
        arms=arms,
        baselines={one: arms[one] for one in arms if one != "federated"},
        differences=of_records,
        privacy=dict.fromkeys(("north", "south"), spent(epsilon)),
        bytes=Bytes(up_per_node_round=1024, down_per_node_round=1024, full_lora_up=9000, full_model_up=10**8),
        timing={"federated": 60.0},
        data=dict.fromkeys(("north", "south"), site),
        warnings=[],
    )


def write_run(folder: Path, one: Result) -> Path:
    """Write a result into a folder of its own."""
    folder.mkdir(parents=True)
    write_result(folder / "result.json", one)
    return folder
