"""What an engine costs: many clients with a trivial task, beside the same ClientApp in a for-loop, and Ray."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from server.aggregation.mean import UniformMean
from server.checkpoints import Checkpoints
from server.coordinator import Coordinator, Observer, Terms
from server.rounds import RoundRecord
from shared.protocol import TrainTask, encode_task
from simulations.benchmarks.measure import Ratio, ratio_of
from simulations.benchmarks.trivial_app import LENGTH, app
from simulations.engine import Engine, LocalEngine

CLIENTS, ROUNDS, RAY_CLIENTS, RAY_ROUNDS = 1000, 7, 100, 3
TRIVIAL = "simulations.benchmarks.trivial_app"


def rows() -> Iterator[Ratio]:
    """Seconds per round of the local engine beside a for-loop and beside Flower's Ray engine."""
    with tempfile.TemporaryDirectory() as folder:
        local = LocalEngine(Path(folder), app=TRIVIAL)
        try:
            loop = BetweenRounds()
            ours = _round_seconds(local, CLIENTS, ROUNDS, loop)
            yield ratio_of(
                f"{CLIENTS} trivial clients, a round", "for-loop", list(zip(ours, loop.seconds, strict=True))
            )
            ours = _round_seconds(local, RAY_CLIENTS, RAY_ROUNDS)
        finally:
            local.close()
        yield ratio_of(
            f"{RAY_CLIENTS} trivial clients, a round",
            "Flower's Ray engine",
            list(zip(ours, _ray_seconds(Path(folder)), strict=True)),
        )


def _ray_seconds(folder: Path) -> list[float]:
    from simulations.ray import RayEngine

    engine = RayEngine(folder, app=TRIVIAL)
    try:
        return _round_seconds(engine, RAY_CLIENTS, RAY_ROUNDS)
    finally:
        engine.close()


class BetweenRounds:
    """Times the for-loop after every round but the first, so that both meet the same machine."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def asks(self, number: int, nodes: Sequence[int]) -> None:
        """Nothing."""

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Nothing."""

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Take the loop's turn."""
        del evaluation
        if record is not None and record.round > 1:
            self.seconds.append(_loop_seconds(len(record.asked)))


def _round_seconds(engine: Engine, clients: int, rounds: int, observer: Observer | None = None) -> list[float]:
    """Seconds of every round but the first, which starts the workers."""
    found: list[float] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        with tempfile.TemporaryDirectory() as folder:
            coordinator = Coordinator(
                grid,
                Terms("study", "run", rounds + 1, clients, 600.0),
                initial=np.zeros(LENGTH, np.float32),
                largest_norm=lambda _number: float("inf"),
                aggregation=UniformMean,
                checkpoints=Checkpoints(Path(folder)),
                observer=observer,
            )
            records: list[dict[str, Any]] = coordinator.run().records
        found.extend(sum(record["seconds"].values()) for record in records[1:])

    engine.serve(server_app, [1] * clients)
    return found


def _loop_seconds(clients: int) -> float:
    content = encode_task(TrainTask("study", "run", 1, np.zeros(LENGTH, np.float32)))
    started = time.perf_counter()
    for number in range(clients):
        config: dict[str, Any] = {"partition-id": number, "num-partitions": clients}
        context = Context(run_id=1, node_id=number + 1, node_config=config, state=RecordDict(), run_config={})
        app(Message(content, number + 1, "train"), context)
    return time.perf_counter() - started
