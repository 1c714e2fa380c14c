"""Arms without rounds: one answer for all, a head that has learned nothing, adapters that sites make for themselves."""

import math
import time
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np

from shared.adapted_model.measured import is_measured
from shared.adapted_model.model import initial_adapter, layout_of
from shared.protocol.messages import Vector
from shared.records.ragged import joined, load
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from simulations.engines.worker import PersonalSite, Seen
from simulations.experiment.sites import Prepared
from simulations.results.result import ArmResult
from simulations.results.summary import quality, untrained

PERSONAL = (
    "trains the federated adapter further at each site, on the site's own records and without noise: it is for that "
    "site's own eyes, as `fedvault-node personalise` makes it, and protects nobody."
)
COUNTS_LABELS = "follows from the sites' training labels and is not private."


class WithoutRounds(NamedTuple):
    """An arm that no server took part in."""

    result: ArmResult
    predictions: list[Seen]
    """For the held-out records of each site."""


def constant_answer(study: Study, prepared: Prepared) -> WithoutRounds | None:
    """Evaluate the best constant answer; None for a task that has none."""
    train = [load(prepared.train_path(site)) for site in prepared.sites]
    held_out = [load(prepared.holdout_path(site)) for site in prepared.evaluated]
    evidence = task_kind(study.task).constant(train, joined(held_out))
    if evidence is None:
        return None
    rest = iter(evidence)
    by_site = [
        Seen(site.name, [*islice(rest, int(part.usable.sum()))])
        for site, part in zip(prepared.evaluated, held_out, strict=True)
    ]
    title = "majority class" if getattr(study.task, "labels", ()) else "one answer for all"
    result = untrained(title, quality(study, by_site), 0.0, private=False, note=COUNTS_LABELS)
    return WithoutRounds(result, by_site)


def untrained_head(study: Study, *, seed: int, evaluate: Callable[[Vector], list[Seen]]) -> WithoutRounds:
    """Evaluate the base model with a random head, or as it is if the task needs no head.

    Args:
        study: as declared.
        seed: of the random head.
        evaluate: predicts held-out records with an adapter of the study's own arm.
    """
    started, generator = time.monotonic(), np.random.default_rng(seed)
    tensors, start, parts = layout_of(study).tensors, initial_adapter(study), list[Vector]()
    for name, shape in tensors:
        size, done = math.prod(shape), sum(len(part) for part in parts)
        random = name.startswith("head.") and name.endswith("weight") and not is_measured(name)
        drawn = generator.standard_normal(size).astype(np.float32)
        parts.append(drawn if random else start[done : done + size])
    title = "untrained head" if any(name.startswith("head.") for name, _ in tensors) else "base model"
    predictions = evaluate(np.concatenate(parts))
    return WithoutRounds(untrained(title, quality(study, predictions), time.monotonic() - started), predictions)


def personal_arm(
    study: Study, prepared: Prepared, adapter: Vector, train: Callable[[list[int], Vector], list[PersonalSite]]
) -> WithoutRounds:
    """Train and evaluate one personal adapter for each site.

    Args:
        study: as declared.
        prepared: its sites.
        adapter: of the federated arm, finished.
        train: trains and evaluates sites by their index.
    """
    started = time.monotonic()
    sites = train([site.index for site in prepared.sites], adapter)
    predictions = [site.seen for site in sites]
    result = ArmResult(
        title="personal WITHOUT PRIVACY",
        private=False,
        epsilon=None,
        rows=sum(site.train for site in prepared.sites),
        units=sum(site.unit_count for site in prepared.sites),
        sampling_rate=study.privacy.sampling_rate,
        steps=max(site.steps for site in sites),
        seconds=time.monotonic() - started,
        quality=quality(study, predictions),
        note=PERSONAL,
    )
    return WithoutRounds(result, predictions)
