"""A simulation's result as curves, for where people keep them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from server.tracking.curves import Curves, finite, flattened, of_evaluations
from simulations.results.result import Result, RoundResult

REPORTS = ("report.html", "report.pdf", "result.json", "adapter")
LONGEST_NAME = 100
"""Characters of a site's or an arm's name in that of a metric; MLflow takes 250 in all."""


def curves_of(result: Result, folder: Path) -> Curves:
    """Return a result's curves: the study's own arm round by round, over all sites and at each, and every other arm.

    An arm that was not evaluated round by round has its last figures after the study's last round.

    Args:
        result: of a finished run.
        folder: where it lies, with its report and adapter; its name and the study name the run in MLflow.
    """
    sites = unlike_names(dict.fromkeys([*result.privacy, *result.final.per_site]))
    rounds = {one.round: _round(one, sites) for one in result.rounds}
    last, arms = max(rounds, default=0), unlike_names(result.arms)
    for name, arm in result.arms.items():
        for number, quality in (arm.curve or {last: arm.quality}).items():
            figures = finite({f"{arms[name]}/{metric}": value for metric, value in quality.metrics.items()})
            rounds[number] = rounds.get(number, {}) | figures
    as_set = hashlib.sha256(json.dumps(result.scenario, sort_keys=True, default=str).encode()).hexdigest()
    epsilons = {f"epsilon.{sites[site]}": f"{spent.epsilon_rdp:.6f}" for site, spent in result.privacy.items()}
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


def unlike_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name one that MLflow takes as a part of a metric's: no two are alike."""
    safe = dict[str, str]()
    for name in names:
        plain = re.sub(r"[^\w.\-: ]", "_", name)[:LONGEST_NAME]
        plain = plain if plain.strip(".") else f"_{plain}"  # a name of dots alone would be a folder's
        numbered = (f"{plain}-{number}" for number in count(2))
        safe[name] = next(one for one in chain([plain], numbered) if one not in safe.values())
    return safe


def _round(one: RoundResult, sites: Mapping[str, str]) -> dict[str, float]:
    answers: dict[str, Any] = {"nodes/accepted": one.accepted, "nodes/rejected": len(one.rejected)}
    answers |= {"nodes/refused": len(one.refused), "nodes/missing": len(one.missing), "seconds/round": one.seconds}
    quality = one.evaluation
    if quality is None:
        return finite(answers)
    at_sites = {f"sites/{sites[site]}/{quality.metric}": value for site, value in quality.per_site.items()}
    return finite(quality.metrics | answers | at_sites)
