"""Measure what an engine costs: many clients with a trivial task, beside a for-loop and beside Flower's Ray engine.

The same coordinator drives both engines, which spares Ray the longer pauses of Flower's own loop. A round of one engine
is followed by one of the other, in one process, so that both meet the same machine.
"""

import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from server.aggregation.mean import UniformMean
from server.rounds.checkpoints import Checkpoints
from server.rounds.coordinator import Coordinator, RunTerms
from shared.protocol.flower_records import encode_task
from shared.protocol.messages import TrainTask, Vector
from simulations.benchmarks.measure import Pairs, Ratio, ratio_of
from simulations.benchmarks.speed.trivial_app import LENGTH
from simulations.engines.local import Engine, LocalEngine

CLIENTS, TURNS, RAY_TURNS = 1000, 7, 5
TRIVIAL = "simulations.benchmarks.speed.trivial_app"


@dataclass(frozen=True)
class Work:
    """A round that is run again and again."""

    app: str
    """Module of the ClientApp."""
    clients: int
    initial: Vector
    study_sha256: str = "study"
    study_run: str = "run"


def rows() -> Iterator[Ratio]:
    """Measure seconds per round of the local engine beside a for-loop and beside Flower's Ray engine."""
    work = Work(TRIVIAL, CLIENTS, np.zeros(LENGTH, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        local = LocalEngine(Path(folder), app=TRIVIAL)
        try:
            measure = f"{CLIENTS} trivial clients, a round"
            yield ratio_of(measure, "for-loop", beside(local, work, lambda: loop_seconds(work), turns=TURNS, warm_up=3))
            pairs = beside_ray(local, work, Path(folder), turns=RAY_TURNS)
            yield ratio_of(measure, "Flower's Ray engine", pairs, aim="at most 0.02")
        finally:
            local.close()


def beside_ray(
    local: LocalEngine, work: Work, folder: Path, *, turns: int, warm_up: int = 1, app: str | None = None
) -> Pairs:
    """Return seconds of rounds by (local engine, Flower's Ray engine), which may run another ClientApp."""
    from simulations.engines.ray import RayEngine

    grid, engine = local.grid([1] * work.clients), RayEngine(folder, app=app or work.app)
    try:
        pairs = beside(engine, work, lambda: round_seconds(grid, work), turns=turns, warm_up=warm_up)
    finally:
        engine.close()
    return [(ours, rays) for rays, ours in pairs]


def beside(engine: Engine, work: Work, other: Callable[[], float], *, turns: int, warm_up: int = 1) -> Pairs:
    """Return seconds of an engine's rounds, and what the other way takes between them; the first ones start workers."""
    pairs: list[tuple[float, float]] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        for _ in range(warm_up + turns):
            pairs.append((round_seconds(grid, work), other()))

    engine.serve(server_app, [1] * work.clients)
    return pairs[warm_up:]


def round_seconds(grid: Grid, work: Work) -> float:
    """Measure one round with everything that the server does in it.

    Raises:
        RuntimeError: not every client's update came.
    """
    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(
            grid,
            RunTerms(work.study_sha256, work.study_run, 1, work.clients, 3600.0),
            initial=work.initial,
            largest_norm=lambda _number: float("inf"),
            aggregation=lambda start: UniformMean(start.length),
            checkpoints=Checkpoints(Path(folder)),
        )
        (record,) = coordinator.run().records
    if len(record["accepted"]) != work.clients:
        raise RuntimeError(f"Expected updates of {work.clients} clients, got {len(record['accepted'])}.")
    return float(sum(record["seconds"].values()))


def loop_seconds(work: Work) -> float:
    """Measure the work's clients in a for-loop, in this process."""
    app = importlib.import_module(work.app).app
    content = encode_task(TrainTask(work.study_sha256, work.study_run, 1, work.initial))
    started = time.perf_counter()
    for number in range(work.clients):
        config: dict[str, Any] = {"partition-id": number, "num-partitions": work.clients}
        context = Context(run_id=1, node_id=number + 1, node_config=config, state=RecordDict(), run_config={})
        app(Message(content, number + 1, "train"), context)
    return time.perf_counter() - started
