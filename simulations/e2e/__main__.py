"""`make e2e`: four organisations over TLS on this machine, a whole study, then every fault.

1. A server and four nodes with the four VADER sites run a study of sentiment under epsilon 3. The final accuracy on
   rows that the server owns must be that of the simulation of the same study, within noise.
2. Two studies whose server can open nothing but sums, masked and with shared noise, end though a node is killed in each
   leg of their rounds.
3. A study of many short rounds goes on while everything that may go wrong is made to go wrong.

One line for each, `ok` or `FAILED`; the exit code says whether any failed.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import typer

from client.vault.records.splits import Split, splits_of
from server.export.adapter import PACKED_FILE
from server.rounds.evaluation import evaluator
from shared.base_models.locate import find
from shared.privacy.noise_schedule import declared_size
from shared.protocol.messages import Vector
from shared.study.declaration import load_study
from shared.study.sections import Model
from simulations.e2e.budgets import limit_for_one
from simulations.e2e.faults import FAULTS, attempt
from simulations.e2e.federation import Federation, Impatience, command, wait_until
from simulations.e2e.scene import Scene
from simulations.e2e.secure_sums import STEPS, secure_study

SCENARIO = Path("simulations/scenarios/vader.toml")
DATA = Path("data/vader/vader.csv")
KEY = b"e2e: which rows the server owns"
ROWS_IN_FAULTS = 80
PLENTY, DELTA = 30.0, 1e-5
NOISE = 0.03
"""Largest difference of accuracy between two runs of one study that differ in their noise alone."""
FAULT_STUDY = """
[study]
name = "faults"
[model]
source = "bundled:minilm"
[task]
kind = "sequence-classification"
labels = ["negative", "positive"]
max_length = 16
[adapter]
layers = "last:1"
[training]
local_steps = 4
learning_rate = 1.0
adapter_learning_rate = 0.5
[federation]
rounds = 2000
quorum = 2
deadline_s = 45
smallest_declared_size = 30
"""


def main(
    faults_only: bool = typer.Option(False, help="Leave out the whole study."),
    only: str = typer.Option("", help="The faults whose name contains this, and no study: 'huge', 'kill -9'."),
    keep: bool = typer.Option(False, help="Keep the folder."),
) -> None:
    """Run a study at four organisations as real processes, then every fault; half an hour.

    Raises:
        BadParameter: no fault is called so.
    """
    wanted = [name for name in FAULTS if only in name]
    if not wanted:
        raise typer.BadParameter(f"expected part of a fault's name, got {only!r}; there are: {', '.join(FAULTS)}")
    folder = Path(tempfile.mkdtemp(prefix="fedvault-e2e-"))
    good = []
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        if not (faults_only or only):
            good.append(_whole_study(folder / "study"))
            good += _secure_studies(folder / "secure")
        good += _faults(folder / "faults", wanted)
    finally:
        if keep:
            typer.echo(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    typer.echo(f"{sum(good)} of {len(good)} ok")
    sys.exit(0 if all(good) else 1)


def _whole_study(folder: Path) -> bool:
    started = time.monotonic()
    folder.mkdir()
    table = pd.read_csv(DATA, dtype=str, keep_default_na=False)
    contents = list(zip(table["text"], table["label"], strict=True))
    owned = [split is Split.HOLDOUT for split in splits_of(contents, key=KEY, holdout=0.15)]
    (folder / "server").mkdir()
    table[owned].to_csv(folder / "own.csv", index=False)
    nodes = table[[not mine for mine in owned]]
    study = folder / "study.toml"
    study.write_text(SCENARIO.read_text().split("[simulation]")[0])
    federation = Federation(folder / "real")
    federation.folder.mkdir()
    try:
        federation.make_server(f'evaluation = "{folder / "own.csv"}"')
        for name, part in nodes.groupby("site"):
            federation.make_node(str(name), part.to_csv(index=False), _policy(len(part)))
        _up(federation, federation.nodes)
        run = federation.start_study(study)
        federation.approve(federation.nodes, run)
        wait_until(lambda: federation.run(run)["state"] == "finished", "the study is finished", timeout_s=1200)
        real = float(federation.run(run)["history"][-1]["evaluation"]["accuracy"])
        federation.server("export", run, str(folder / "adapter"))
        simulated = _simulated(folder, nodes)
    except Impatience as error:
        typer.echo(f"FAILED a whole study: {error}")
        return False
    finally:
        federation.stop()
    good = abs(real - simulated) <= NOISE
    seconds = time.monotonic() - started
    typer.echo(
        f"{'ok    ' if good else 'FAILED'} a whole study at four nodes: accuracy {real:.3f} on the server's rows, "
        f"the simulation of the same study {simulated:.3f} ({seconds:.0f} s)"
    )
    return good


def _secure_studies(folder: Path) -> list[bool]:
    folder.mkdir()
    table = pd.read_csv(DATA, dtype=str, keep_default_na=False)
    federation, good = Federation(folder), []
    try:
        federation.make_server("grace_s = 5")
        for name, part in table.groupby("site"):
            rows = part.head(ROWS_IN_FAULTS)
            policy = _policy(len(rows), epsilon=PLENTY, more='epsilon_if_all_collude = "no-limit"\n')
            federation.make_node(str(name), rows.to_csv(index=False), policy, node="local_metrics = false")
        _up(federation, federation.nodes)
        for mode in STEPS:
            started = time.monotonic()
            try:
                outcome = f"ok     a {mode} sum: {secure_study(federation, federation.nodes, mode)}"
            except Impatience as error:
                outcome = f"FAILED a {mode} sum: {error}"
            good.append(outcome.startswith("ok"))
            typer.echo(f"{outcome} ({time.monotonic() - started:.0f} s)")
    except Impatience as error:
        typer.echo(f"FAILED to get as far as secure sums: {error}")
        return [False]
    finally:
        federation.stop()
    return good


def _simulated(folder: Path, nodes: pd.DataFrame) -> float:
    """Return the accuracy, on the server's own rows, of this study simulated on the nodes' rows."""
    nodes.to_csv(folder / "nodes.csv", index=False)
    scenario = folder / "scenario.toml"
    text = (folder / "study.toml").read_text()
    scenario.write_text(
        f'{text}\n[simulation]\nseed = 7\narms = ["federated"]\nevaluate_every = 100\n[simulation.data]\n'
        f'source = "{folder / "nodes.csv"}"\nholdout = 0.1\npartition = {{ by = "column", column = "site" }}\n'
    )
    command("simulations", "run", str(scenario), "--out", str(folder / "simulation"), timeout_s=1200)
    measure = evaluator(load_study(folder / "study.toml"), folder / "own.csv", {})
    return float(measure(0, _packed(folder / "simulation" / "adapter"))["accuracy"])


def _packed(folder: Path) -> Vector:
    from safetensors.numpy import load_file

    adapter: Vector = load_file(folder / PACKED_FILE)["adapter"]
    return adapter


def _faults(folder: Path, wanted: list[str]) -> list[bool]:
    folder.mkdir()
    table = pd.read_csv(DATA, dtype=str, keep_default_na=False)
    federation, honest, tight = Federation(folder), ["tweets", "amazon", "editorials"], "amazon"
    study = folder / "study.toml"
    study.write_text(FAULT_STUDY)
    limit = limit_for_one(load_study(study), DELTA)
    try:
        federation.make_server()
        for name in [*honest, "rogue"]:
            part = table[table["site"] == (name if name != "rogue" else "movies")].head(ROWS_IN_FAULTS)
            policy = _policy(len(part), epsilon=limit if name == tight else PLENTY)
            federation.make_node(name, part.to_csv(index=False), policy, node="local_metrics = false")
        _up(federation, honest)
        federation.enrol("rogue")
        run = federation.start_study(study)
        federation.approve(honest, run)
        scene = Scene(federation, run, honest, "rogue", tight)
        wait_until(scene.records, "the first round")
        return [attempt(name, scene, typer.echo) for name in wanted]
    except Impatience as error:
        typer.echo(f"FAILED to get as far as the faults: {error}")
        return [False]
    finally:
        federation.stop()


def _up(federation: Federation, nodes: list[str]) -> None:
    federation.server("start", "--detach")
    wait_until(federation.ready, "the server runs")
    for name in nodes:
        federation.enrol(name)
        federation.node(name, "start", "--detach")


def _policy(rows: int, *, epsilon: float = 3.0, more: str = "") -> str:
    fingerprint = find(Model(source="bundled:minilm")).fingerprint
    # one thread each: four vaults share this machine's cores
    return (
        f"epsilon = {epsilon}\ndelta = {DELTA}\ndeclared_size = {declared_size(int(rows * 0.9))}\n"
        f'models = ["{fingerprint}"]\nsmallest_cohort = 2\n{more}[performance]\nthreads = 1\n'
    )


if __name__ == "__main__":
    typer.run(main)
