"""`make federation`: a server and three nodes on this machine, left running, with a study that waits for your decision.

1. The server owns some rows, on which it measures every round. The nodes have the others, one kind of text each.
2. Two nodes approve the study by themselves. It needs all three, so it waits for the third, which is yours.

`make federation-down` stops every process and removes the folder.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import psutil
import typer

from client.settings import Folders, folders, load_node
from client.vault.records.splits import Split, splits_of
from server.settings import Home
from shared.base_models.locate import find
from shared.command_line import run_command
from shared.errors import RunError, SettingsError
from shared.files import write_atomically
from shared.privacy.noise_schedule import declared_size
from shared.processes.running import read_state, stop
from shared.study.declaration import Study, load_study
from shared.terminal import Activity, saying
from simulations.e2e.federation import Federation, Impatience, listens, wait_until
from simulations.e2e.walkthrough_text import guide, removing

NODES = ("tweets", "amazon", "movies")
YOURS = NODES[-1]
STUDY = Path(__file__).with_name("study.toml")
TABLE = Path("data/vader/vader.csv")
ROWS, OWNED_ROWS, HOLDOUT = 2500, 600, 0.1
KEY = b"make federation: which rows the server owns"
MARK, LOCK = "federation.json", "lock"
READY_S, OFFERED_S, ENDS_S = 300.0, 900.0, 30.0
TRIES = 3
FOLDER = Annotated[Path, typer.Option(help="Everything goes there.")]
cli = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True)


@cli.command()
def up(
    folder: FOLDER = Path("runs/federation"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the gateway; 0: any free one.")] = 0,
) -> None:
    """Leave a server and three nodes running, with a study that waits for the third node; say what to type next."""
    made = _made(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), _plainly(folder):
        if made.get("ready"):
            with saying("Looking whether everything runs") as activity:
                began = _start(_opened(folder), activity)
            typer.echo("It was not running and runs again." if began else "It runs already.")
        else:
            _remove(folder)
            _make(folder.resolve(), port)
            made = _made(folder)
    federation = _opened(folder)
    typer.echo("\n".join(guide(folder, NODES, made["run"], federation.run(made["run"]), federation.address)))


@cli.command()
def down(folder: FOLDER = Path("runs/federation")) -> None:
    """Stop the server and its nodes, and remove their folder."""
    if not folder.exists():
        typer.echo(f"Nothing to stop: {folder} is not there.")
        return
    _made(folder)
    with _locked(folder):
        typer.echo(removing(folder, len(NODES)))
        with saying("Waiting for the processes to end"):
            end(folder.resolve())
            shutil.rmtree(folder)
    typer.echo("Stopped and removed.")


def end(folder: Path) -> None:
    """Stop every process of a federation; what does not end by itself is killed."""
    federation = _opened(folder)
    ours = _processes(folder)
    for place in [*(_node(federation, name).running for name in federation.nodes), Home(federation.home).running]:
        with suppress(RunError):  # what does not stop is killed below
            stop(place)
    _, left = psutil.wait_procs(ours, timeout=ENDS_S)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=ENDS_S)


def _make(folder: Path, port: int) -> None:
    """Build everything in an empty folder; whatever goes wrong, no process is left."""
    _refuse_taken([port] if port else [])
    _write_mark(folder, {"ready": False})
    federation, steps = Federation(folder), len(NODES) + 5
    try:
        with saying("Setting the server up") as activity:
            activity.now("Setting the server up", 0, steps)
            tables = _tables()
            tables.pop("server").to_csv(folder / "evaluation.csv", index=False)
            shutil.copy(STUDY, folder / STUDY.name)
            federation.make_server(f'evaluation = "{folder / "evaluation.csv"}"', port=port)
            activity.now("Starting the server", 1, steps)
            _start(federation, activity)
            for place, (name, rows) in enumerate(tables.items(), start=2):
                activity.now(f"Setting the node '{name}' up", place, steps)
                federation.make_node(name, rows.to_csv(index=False), policy(len(rows)))
                federation.enrol(name)
                federation.node(name, "start", "--detach")
            activity.now("Offering the study", steps - 3, steps)
            run = federation.start_study(folder / STUDY.name)
            for place, name in enumerate(name for name in NODES if name != YOURS):
                activity.now(f"Waiting until '{name}' has the study and approves", steps - 3 + place, steps)
                _decided(federation, name, run)
            activity.now(f"Waiting until '{YOURS}' has the study", steps - 1, steps)
            _await(federation, lambda: _offered(federation, YOURS, run), f"{YOURS} has the study", OFFERED_S)
        _write_mark(folder, {"ready": True, "run": run})
    except BaseException:
        end(folder)
        raise


def policy(rows: int) -> str:
    """Return what a node's `node.toml` says of its dataset."""
    return (
        f"epsilon = 6.0\nepsilon_per_study = 3.0\ndelta = 1e-5\ndeclared_size = {declared_size(int(rows * 0.9))}\n"
        f'holdout = {HOLDOUT}\nmodels = ["{find(_study().model).fingerprint}"]\n'
        'readable_columns = ["text", "label"]\ntasks = ["sequence-classification"]\n'
        'study_must_state = ["purpose", "requester", "contact", "legal_basis", "retention"]\n'
        # one thread each: three vaults share this machine's cores
        "[performance]\nthreads = 1\n"
    )


def _study() -> Study:
    return load_study(STUDY)


def _tables() -> dict[str, pd.DataFrame]:
    """Return the rows of every node, and those that the server owns; no text is in both."""
    if not TABLE.exists():
        raise SettingsError(f"Expected {TABLE}, got nothing.", hint="Run: make setup")
    table = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    contents = list(zip(table["text"], table["label"], strict=True))
    owned = pd.Series([split is Split.HOLDOUT for split in splits_of(contents, key=KEY, holdout=HOLDOUT)])
    mine = table["site"].isin(NODES)
    rows = {name: _spread(table[~owned & (table["site"] == name)]) for name in NODES}
    return rows | {"server": table[owned & mine].iloc[:: max(1, int((owned & mine).sum()) // OWNED_ROWS)]}


def _spread(table: pd.DataFrame) -> pd.DataFrame:
    """Take rows from all over a table, which may be sorted by label."""
    return table.iloc[np.linspace(0, len(table) - 1, min(ROWS, len(table))).astype(int)]


def _start(federation: Federation, activity: Activity) -> bool:
    """Start what does not run, wait until the server answers, and return whether anything was started."""
    settings = Home(federation.home).settings()
    down = [name for name in federation.nodes if read_state(_node(federation, name).running) is None]
    stopped = read_state(Home(federation.home).running) is None
    if stopped:
        _refuse_taken([settings.port, settings.superlink_port])
        federation.server("start", "--detach")
    _await(federation, federation.ready, "the server answers", READY_S)
    for name in down:
        activity.now(f"Starting the node '{name}'")
        federation.node(name, "start", "--detach")
    return stopped or bool(down)


def _refuse_taken(ports: list[int]) -> None:
    for port in ports:
        if listens(port):
            raise RunError(
                f"Expected a free port, got port={port}, on which another program listens.",
                hint="End that program; or make federation-down, then make federation, which chooses free ports.",
            )


def _decided(federation: Federation, name: str, run: str) -> None:
    _await(federation, lambda: _offered(federation, name, run), f"{name} has the study", OFFERED_S)
    note = "approved by make federation, for you to see how a decision is kept"
    federation.node(name, "approve", run, "--yes", "--by", f"operator of {name}", "--note", note)


def _offered(federation: Federation, name: str, run: str) -> bool:
    return any(run in path.read_text() for path in _node(federation, name).offers.glob("*.json"))


def _await(federation: Federation, look: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait for a condition; a supervisor that is gone, or a process that dies again and again, ends the waiting."""
    homes = {"server": Home(federation.home).running}
    homes |= {name: _node(federation, name).running for name in federation.nodes}
    seen = set[str]()

    def looked() -> bool:
        for name, place in homes.items():
            state = read_state(place)
            if state is None and name in seen:
                raise Impatience(f"the processes of {name} ended; see {place.parent / 'logs'}")
            seen.update([name] if state is not None else [])
            for process, facts in (state or {"processes": {}})["processes"].items():
                if facts["failures"] >= TRIES:
                    log = place.parent / "logs" / f"{process}.log"
                    raise Impatience(f"{process} of {name} ended {facts['failures']} times: {_last_line(log)} ({log})")
        return look()

    wait_until(looked, what, timeout_s=timeout_s)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote no log")


def _node(federation: Federation, name: str) -> Folders:
    config = federation.config(name)
    return folders(config, load_node(config))


def _opened(folder: Path) -> Federation:
    """Return a federation that was made here before, as far as it got."""
    federation = Federation(folder.resolve())
    federation.nodes += [name for name in NODES if federation.config(name).exists()]
    return federation


def _processes(folder: Path) -> list[psutil.Process]:
    """Return our servers' and nodes' processes whose command line names this folder, and what these started."""
    by_pid = dict[int, psutil.Process]()
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line[1:2] == ["-m"] and line[2:3] in (["server"], ["client"]) and any(f"{folder}/" in word for word in line):
            with suppress(psutil.NoSuchProcess):
                by_pid |= {one.pid: one for one in [process, *process.children(recursive=True)]}
    return list(by_pid.values())


def _made(folder: Path) -> dict[str, Any]:
    """Read what `up` wrote about its folder; nothing of a new one.

    Raises:
        SettingsError: the folder holds something else.
    """
    mark = folder / MARK
    if not folder.exists() or {path.name for path in folder.iterdir()} <= {LOCK}:
        return {}
    if not mark.exists():
        raise SettingsError(f"Expected a folder of make federation, got {folder}, which holds something else.")
    facts: dict[str, Any] = json.loads(mark.read_text())
    return facts


def _write_mark(folder: Path, facts: dict[str, Any]) -> None:
    write_atomically(folder / MARK, json.dumps(facts).encode())


def _remove(folder: Path) -> None:
    """Empty the folder of one that was cut while it was made."""
    end(folder.resolve())
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    try:
        yield
    except Impatience as error:
        raise RunError(f"Expected a federation that runs: {error}", hint=f"Logs are below {folder}.") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"Expected nobody else at work on {folder}, got another make federation.", hint="Wait for it."
            ) from None
        yield


if __name__ == "__main__":
    run_command(cli)
