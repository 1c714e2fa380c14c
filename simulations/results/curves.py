"""A simulation's result as curves, for where people keep them."""

import hashlib
import json
from pathlib import Path

from server.tracking.curves import Curves, finite, flattened, of_evaluations
from simulations.results.result import Result

REPORTS = ("report.html", "report.pdf", "result.json", "adapter")


def curves_of(result: Result, folder: Path) -> Curves:
    """Return a result's curves: the study's own arm round by round, and every arm's last figures after its last round.

    Args:
        result: of a finished run.
        folder: where it lies, with its report and adapter; its name and the study name the run in MLflow.
    """
    rounds = {
        one.round: finite(
            (one.evaluation.metrics if one.evaluation else {})
            | {"nodes/accepted": one.accepted, "nodes/rejected": len(one.rejected), "nodes/refused": len(one.refused)}
            | {"nodes/missing": len(one.missing), "seconds/round": one.seconds}
        )
        for one in result.rounds
    }
    last = max(rounds, default=0)
    arms = {
        f"{name}/{metric}": value for name, arm in result.arms.items() for metric, value in arm.quality.metrics.items()
    }
    rounds[last] = rounds.get(last, {}) | finite(arms)
    as_set = hashlib.sha256(json.dumps(result.scenario, sort_keys=True, default=str).encode()).hexdigest()
    epsilons = {f"epsilon.{site}": f"{spent.epsilon_rdp:.6f}" for site, spent in result.privacy.items()}
    return Curves(
        key=f"{folder.resolve().name} {result.study_sha256} {as_set[:16]}",  # seed and data are no part of a study
        name=f"{folder.resolve().name} (simulation)",
        params=flattened(result.scenario),
        tags={"study_sha256": result.study_sha256, "simulation": "seeded noise: not private", **epsilons},
        rounds=rounds,
        ending="finished",
        artifacts=tuple(folder / name for name in REPORTS if (folder / name).exists()),
        evaluations=of_evaluations(result.evaluations),
    )
