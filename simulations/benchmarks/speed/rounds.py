"""Measure seconds of a round that are not training: four real nodes over TLS, beside stock Flower over plain HTTP.

Both put LoRA on the same layer of MiniLM and train on the same rows with the same steps and expected batch; Flower's
own app trains without privacy, A as well as B, and its nodes run in their default mode. From each round's wall time the
training time of its slowest node is taken away. First rounds, which load models and wait for people, are left out.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pandas as pd

import simulations.benchmarks.stock
from server.run_store.store import Store
from server.settings import Home
from shared.base_models.locate import find
from shared.environment import OFFLINE
from shared.privacy.noise_schedule import declared_size
from shared.study.sections import Model
from simulations.benchmarks.measure import Ratio, ratio_of
from simulations.e2e.federation import Federation, free_port, listens, wait_until
from simulations.quiet import ENVIRONMENT

DATA = Path("data/vader/vader.csv")
STOCK = Path(simulations.benchmarks.stock.__path__[0], "flower")
SITES = ("tweets", "amazon", "movies", "editorials")
ROWS, TURNS = 400, 3
OUR_ROUNDS, STOCK_ROUNDS = 6, 3
TIMEOUT_S = 600.0
STUDY = f"""
[study]
name = "rounds"
[model]
source = "bundled:minilm"
[task]
kind = "sequence-classification"
labels = ["negative", "positive"]
max_length = 48
[adapter]
layers = "last:1"
[privacy]
sampling_rate = 0.1
[training]
local_steps = 6
[federation]
rounds = {OUR_ROUNDS}
quorum = 4
smallest_declared_size = 200
"""
POLICY = """epsilon = 100.0
delta = 1e-5
declared_size = {size}
models = ["{fingerprint}"]
smallest_cohort = 2
[performance]
threads = 1
"""


def rows() -> Iterator[Ratio]:
    """Measure ours beside stock Flower, turn by turn."""
    with tempfile.TemporaryDirectory(prefix="fedvault-e2e-") as scratch:
        folder = Path(scratch)
        tables = _tables(folder)
        federation = Federation(folder / "ours")
        federation.folder.mkdir()
        study = folder / "study.toml"
        study.write_text(STUDY)
        try:
            _start_ours(federation, tables)
            with _stock(folder / "stock", tables):
                pairs = []
                for turn in range(TURNS):
                    ours = _our_overheads(federation, study)
                    theirs = _stock_overheads(folder / "stock", folder / f"report-{turn}.jsonl")
                    # every round of theirs beside one of ours from the same turn
                    pairs += list(zip(ours, theirs, strict=False))
        finally:
            federation.stop()
    yield ratio_of(f"{len(SITES)} nodes, a round without its training", f"stock Flower {version('flwr')}", pairs)


def _tables(folder: Path) -> dict[str, str]:
    table = pd.read_csv(DATA, dtype=str, keep_default_na=False)
    by_site = {site: table[table["site"] == site].head(ROWS).to_csv(index=False) for site in SITES}
    for site, text in by_site.items():
        (folder / f"{site}.csv").write_text(text)
    return by_site


def _start_ours(federation: Federation, tables: dict[str, str]) -> None:
    fingerprint = find(Model(source="bundled:minilm")).fingerprint
    federation.make_server()
    for site, table in tables.items():
        policy = POLICY.format(size=declared_size(int(ROWS * 0.9)), fingerprint=fingerprint)
        federation.make_node(site, table, policy)
    federation.server("start", "--detach")
    wait_until(federation.ready, "the server runs")
    for site in tables:
        federation.enrol(site)
        federation.node(site, "start", "--detach")


def _our_overheads(federation: Federation, study: Path) -> list[float]:
    """Seconds per round but the first."""
    run = federation.start_study(study)
    federation.approve(list(SITES), run)
    wait_until(lambda: federation.run(run)["state"] == "finished", "the run is finished", timeout_s=TIMEOUT_S)
    with Store(Home(federation.home).database()) as store:
        rounds = [event for event in store.events(run) if event.kind == "round"]
    ended = [datetime.fromisoformat(event.time).timestamp() for event in rounds]
    overheads = []
    for (before, after), event in zip(pairwise(ended), rounds[1:], strict=True):
        if len(event.body["accepted"]) != len(SITES):
            raise RuntimeError(f"Expected all nodes in round {event.body['round']}, got {event.body['accepted']}.")
        slowest = max(_train_seconds(federation, site, run, event.body["round"]) for site in SITES)
        overheads.append(after - before - slowest)
    return overheads


def _train_seconds(federation: Federation, site: str, run: str, number: int) -> float:
    path = federation.folder / site / "node" / "metrics.jsonl"

    def measured_s() -> float:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return max(
            (line["train_seconds"] for line in lines if (line["run"], line["round"]) == (run, number)), default=0
        )

    return wait_until(measured_s, f"{site} has measured round {number}")


@contextmanager
def _stock(folder: Path, tables: dict[str, str]) -> Iterator[None]:
    """Run Flower's own SuperLink and SuperNodes, as its documentation starts them."""
    folder.mkdir()
    address, scripts = f"127.0.0.1:{free_port()}", Path(sys.executable).parent
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
    )
    host, port = address.split(":")
    commands = [[str(scripts / "flower-superlink"), "--insecure", "--host", host, "--port", port]]
    for site in tables:
        data = folder.parent / f"{site}.csv"
        node = ["--superlink", address, "--port", str(free_port()), "--node-config", f'data="{data}"']
        commands.append([str(scripts / "flower-supernode"), "--insecure", *node])
    processes = []
    with (folder / "log.txt").open("w") as log:
        try:
            for command in commands:
                processes.append(
                    subprocess.Popen(command, env=_environment(folder), stdout=log, stderr=log)  # noqa: S603 - Flower's own
                )
                if len(processes) == 1:  # nodes that find no server wait long
                    wait_until(lambda: listens(int(port)), "stock Flower's SuperLink runs")
            yield
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in reversed(processes):
                process.wait(30)


def _stock_overheads(folder: Path, report: Path) -> list[float]:
    """Seconds per round but the first."""
    model = find(Model(source="bundled:minilm")).directory
    settings = f'rounds={STOCK_ROUNDS} nodes={len(SITES)} model="{model}" report="{report}"'
    command = [str(Path(sys.executable).parent / "flwr"), "run", str(STOCK), "bench", "--run-config", settings]
    done = subprocess.run(command, env=_environment(folder), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"Expected Flower to take the app, got:\n{done.stdout}{done.stderr}")

    def lines() -> list[dict[str, float]]:
        rounds = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        return rounds if len(rounds) == STOCK_ROUNDS else []

    rounds = wait_until(lines, "stock Flower is done", timeout_s=TIMEOUT_S)
    return [after["ended"] - before["ended"] - after["train_seconds"] for before, after in pairwise(rounds)]


def _environment(folder: Path) -> dict[str, str]:
    # stock Flower looks for its other programs by name
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | ENVIRONMENT | OFFLINE | {"FLWR_HOME": str(folder), "PATH": path}
