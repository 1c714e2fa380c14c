"""`fedvault-server`: a federation, its nodes, its studies."""

import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.settings import Home
from shared.command_line import VERBOSE, print_table, run_command

if TYPE_CHECKING:
    from server.run_store import Happened, Store

cli = typer.Typer(
    help="The coordination server of a federation. Begin with: init, then invite, then start, then run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
HomeOption = Annotated[
    Path, typer.Option("--home", help="The server's folder.", envvar="FEDVAULT_SERVER_HOME", show_envvar=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(help="A run, or the beginning of its name. `runs` lists them.")]
EVERYWHERE, SUPERLINK_HOST, ANSWERS_WITHIN_S = "0.0.0.0", "127.0.0.1", 2.0  # noqa: S104 - what a setting may say
HOME, STDOUT = Path("federation"), Path("-")
FOLLOW_S = 0.3
PROCESSES = {"superlink": "server.flower.superlink", "gateway": "server.gateway.process", "run": "server.run_process"}
OVER = frozenset({"finished", "stopped", "failed"})


@cli.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False) -> None:
    os.environ[VERBOSE] = "1" if verbose else ""


@cli.command()
def init(
    host: Annotated[list[str], typer.Option("--host", help="Name or address that nodes will use; may be repeated.")],
    port: Annotated[int, typer.Option(help="Port that nodes will use.")] = 8443,
    home: HomeOption = HOME,
) -> None:
    """Make the folder, the federation's certificate authority and the server's certificate."""
    from server.certificate_authority import create, issue_server
    from shared.errors import SettingsError

    found = Home(home)
    if found.config.exists():
        raise SettingsError(f"Expected a new folder, {home} holds a federation.", hint="Choose another --home.")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    create(found.keys, "FedVault federation")
    certificate = issue_server(found.keys, host)
    found.config.write_text(_settings(host, port))
    typer.echo(f"{home}: a federation at {host[0]}:{port}. Its certificate ends {certificate.expires:%Y-%m-%d}.")
    typer.echo("Next: fedvault-server invite NAME, then fedvault-server start")


@cli.command()
def renew(home: HomeOption = HOME) -> None:
    """Renew the server's certificate; takes effect with the next start. Nodes renew theirs by themselves."""
    from server.certificate_authority import issue_server

    found = Home(home)
    certificate = issue_server(found.keys, found.settings().hosts)
    typer.echo(f"The server's certificate ends {certificate.expires:%Y-%m-%d}. Restart to use it.")


@cli.command()
def invite(
    name: Annotated[str, typer.Argument(help="What you will call the node.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write it, - to print it; default NAME.invite.json.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="Days until it expires.")] = 7,
    home: HomeOption = HOME,
) -> None:
    """Write an invite: one file for one organisation, good for one enrolment. Hand it over privately."""
    from datetime import timedelta

    from server.gateway.enrolment import invite as make
    from server.gateway.enrolment import write_invite

    found, path = Home(home), out or Path(f"{name}.invite.json")
    with _store(found) as store:
        made = make(store, found, name, lifetime=timedelta(days=days))
    if path == STDOUT:
        typer.echo(made.model_dump_json(indent=1))
        return
    write_invite(made, path)
    typer.echo(f"{path}: for {name}, until {made.expires:%Y-%m-%d %H:%M} UTC. There: fedvault-node join {path.name}")


@cli.command()
def nodes(home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Who was invited, enrolled, revoked, and who is online."""
    found = Home(home)
    online = _online(found)
    with _store(found) as store:
        rows = [
            {
                "name": node.name,
                "standing": "revoked" if node.revoked else "enrolled" if node.enrolled else "invited",
                "online": None if online is None else node.node_id in online,
                "since": (node.revoked or node.enrolled or node.invited)[:19],
            }
            for node in store.nodes()
        ]
    _print(rows, as_json)


@cli.command()
def revoke(name: Annotated[str, typer.Argument(help="A node.")], home: HomeOption = HOME) -> None:
    """Shut a node out, from its next request on."""
    from server.flower.control import Control
    from server.gateway.enrolment import revoke as shut_out

    found = Home(home)
    with _store(found) as store:
        control = Control(found)
        shut_out(store, control, name)
        control.close()
    typer.echo(f"{name} is shut out.")


@cli.command()
def start(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Start everything: gateway, Flower's SuperLink behind it, and whatever run is wanted. Ctrl-C stops it cleanly."""
    from server.processes import supervise
    from shared.logs import configure
    from shared.supervisor import detach as go

    found = Home(home.resolve())
    found.settings()
    if detach:
        command = [sys.executable, "-m", "server", "start", "--home", str(found.folder)]
        pid = go(command, found.logs / "supervisor.log", found.running)
        typer.echo(f"Running in the background as process {pid}. Logs: {found.logs}. fedvault-server halt stops it.")
        return
    configure("supervisor")
    supervise(found)


@cli.command()
def halt(home: HomeOption = HOME) -> None:
    """Stop the server; runs go on when it is started again."""
    from shared.supervisor import stop as end

    typer.echo("Stopped." if end(Home(home.resolve()).running) else "It was not running.")


@cli.command()
def status(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless everything runs and answers.")] = False,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """What runs, how large Flower's database is, when certificates end."""
    from server.certificate_authority import SERVER, Issued
    from server.processes import flower_bytes
    from shared.supervisor import read_state

    found = Home(home.resolve())
    settings, state = found.settings(), read_state(found.running)
    expires = Issued(found.keys / f"{SERVER}.crt", found.keys / f"{SERVER}.key").expires
    with _store(found) as store:
        wanted = store.next_wanted()
    facts: dict[str, Any] = {
        "running": state is not None,
        "processes": state["processes"] if state else {},
        "ready": _listens(settings.listen, settings.port) and _listens(SUPERLINK_HOST, settings.superlink_port),
        "address": f"{settings.hosts[0]}:{settings.port}",
        "run": wanted.id if wanted else None,
        "flower_database_bytes": flower_bytes(found),
        "certificate_ends": expires.isoformat(),
        "renew_due": expires.timestamp() - datetime.now(UTC).timestamp() < 30 * 86400,
    }
    _print_facts(facts, as_json)
    up = all(process["pid"] for process in facts["processes"].values() or [{"pid": None}])
    if check and not (up and facts["ready"]):
        raise typer.Exit(1)


@cli.command()
def plan(
    study: Annotated[Path, typer.Argument(help="The study's TOML file.")],
    sizes: Annotated[str, typer.Option(metavar="N,N,...", help="Declared size of every node, as their operators say.")],
    epsilon_limit: Annotated[
        float | None, typer.Option(help="The most a node's dataset may ever spend. Default: the study's epsilon.")
    ] = None,
    spent_steps: Annotated[int, typer.Option(min=0, help="Steps of such studies that its ledger holds already.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what a study will cost every node and whether it can learn, before anybody spends budget.

    Nothing is queued and no node is asked. How long it takes depends on each node: `fedvault-sim plan` measures that.

    Example: fedvault-server plan study.toml --sizes 3700,4200,1600
    """
    from server.forecast.forecast import read_sizes, study_in, study_plan
    from server.forecast.suggestions import remedies
    from server.forecast.text import as_json as to_json
    from server.forecast.text import show as show_plan
    from shared.adapted_model.model import layout_of

    declared, wanted = study_in(study), read_sizes(sizes)
    found = study_plan(declared, layout_of(declared), wanted, epsilon_limit=epsilon_limit, spent_steps=spent_steps)
    help_with = remedies(declared, found)
    if as_json:
        typer.echo(json.dumps(to_json(found, help_with), indent=1))
        return
    show_plan(found, help_with)


@cli.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study's TOML file.")],
    follow: Annotated[bool, typer.Option("--follow", help="Watch it to its end.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also if updates of small sites are sure to be kept out.")
    ] = False,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Queue a study. It starts as soon as enough nodes have approved it. `plan` says beforehand what to expect."""
    from server.forecast.rejected_rounds import refuse_what_is_kept_out
    from shared.adapted_model.model import layout_of
    from shared.base_models.locate import find
    from shared.study.declaration import load_study

    declared = load_study(study)
    # nodes resolve the base model by its fingerprint alone, so a study is pinned before it is shown to anyone
    pinned = declared.model.model_copy(update={"fingerprint": find(declared.model).fingerprint})
    declared = declared.model_copy(update={"model": pinned})
    if not force:
        refuse_what_is_kept_out(declared, layout_of(declared))
    with _store(Home(home)) as store:
        made = store.create_run(declared)
        _print_facts(made.as_dict(), as_json)
        if follow:
            _follow(store, made.id, as_json)


@cli.command()
def runs(home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Every run, newest first."""
    with _store(Home(home)) as store:
        every = [run.as_dict() for run in store.runs()]
    columns = ("id", "study", "state", "round", "rounds", "created", "reason")
    _print(every if as_json else [{name: row[name] for name in columns} for row in every], as_json)


@cli.command()
def show(run: RunName, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """One run: its rounds, who answered, refused (why), was late, was quarantined (why)."""
    found = Home(home)
    with _store(found) as store:
        one = store.run(run)
        rounds, names = store.rounds(one.id), _names(store)
    if as_json:
        told = [record | {"evaluation": evaluation} for record, evaluation in rounds]
        typer.echo(json.dumps(one.as_dict() | {"history": told, "nodes": names}, indent=1))
        return
    _print_facts(one.as_dict(), as_json)
    _print([_row(record, evaluation, names) for record, evaluation in rounds], as_json=False)


@cli.command()
def stop(run: RunName, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Stop a run after whatever it is doing; nothing that is finished is lost."""
    with _store(Home(home)) as store:
        one = store.run(run)
        store.want(one.id, wanted=False)
        if as_json:
            _print_facts(store.run(one.id).as_dict(), as_json)
            return
    typer.echo(f"{one.id} stops. Go on with: fedvault-server resume {one.id}")


@cli.command()
def resume(run: RunName, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Go on with a run that was stopped or failed, from its last finished round."""
    from shared.errors import SettingsError

    with _store(Home(home)) as store:
        one = store.run(run)
        if one.state == "finished":
            raise SettingsError(f"Expected a run that is not finished, {one.id} is.")
        store.want(one.id, wanted=True)
        if as_json:
            _print_facts(store.run(one.id).as_dict(), as_json)
            return
    typer.echo(f"{one.id} goes on.")


@cli.command()
def logs(
    run: Annotated[str | None, typer.Argument(help="A run; without it, the processes' own logs.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it comes.")] = False,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """What happened, line by line."""
    from shared.supervisor import tail

    found = Home(home.resolve())
    if run is None:
        tail(found.logs, follow=follow, as_json=as_json)
        return
    with _store(found) as store:
        one = store.run(run)
        if follow:
            _follow(store, one.id, as_json)
            return
        for happened in store.events(one.id):
            _print_event(happened, _names(store), as_json)


@cli.command()
def export(
    run: RunName,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    merged: Annotated[bool, typer.Option("--merge", help="A complete model, with the adapter in its weights.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Hand out a finished adapter, or the whole model with it, and its model card; plain transformers loads either."""
    import shutil

    from server.run_process import adapter_folder
    from shared.errors import SettingsError

    found = Home(home)
    with _store(found) as store:
        one = store.run(run)
    if one.state != "finished":
        raise SettingsError(f"Expected a finished run, {one.id} is {one.state} after {one.round} rounds.")
    if folder.exists():
        raise SettingsError(f"Expected a new folder, {folder} is there.")
    exported = adapter_folder(found, one)
    if merged:
        from server.export.adapter import merge

        merge(exported, folder)
        shutil.copy(exported / "README.md", folder)
    else:
        shutil.copytree(exported, folder)
    what = "the whole model" if merged else "the adapter"
    typer.echo(f"{folder}: {what}, its head if it has one, and README.md, its card, which says how to load it.")


@cli.command(hidden=True)
def process(name: str, run: str = "", home: HomeOption = HOME) -> None:
    """One of the server's own processes; started by `start`."""
    from shared.logs import configure
    from shared.supervisor import leave_with_parent

    module = importlib.import_module(PROCESSES[name])
    configure(name)  # after the import: Flower brings a log handler of its own
    leave_with_parent()
    if run:
        module.drive(Home(home), run)
    else:
        module.serve(Home(home))


def main() -> None:
    """Entry point."""
    run_command(cli)


def _settings(hosts: list[str], port: int) -> str:
    return (
        "# Every key and its meaning: server/settings.py\n"
        f"hosts = {json.dumps(hosts)}\n"
        f"port = {port}\n"
        '# evaluation = "own.csv"      # a table of your own to measure on, with columns text and label\n'
        '# database = "postgresql+psycopg://user@host/fedvault"\n'
    )


def _store(home: Home) -> "Store":
    from server.run_store import Store

    return Store(home.database())


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1" if host == EVERYWHERE else host, port), timeout=ANSWERS_WITHIN_S).close()
    except OSError:
        return False
    return True


def _online(home: Home) -> set[int] | None:
    from server.flower.control import Control
    from shared.errors import RunError

    control = Control(home)
    with suppress(RunError):
        return {node.node_id for node in control.nodes() if node.status == "online"}
    return None


def _names(store: "Store") -> dict[str, str]:
    return {str(number): name for number, name in store.names().items()}


def _follow(store: "Store", run: str, as_json: bool) -> None:
    after = 0
    while True:
        state = store.run(run).state  # read before the events, so that the last ones are not missed
        for happened in store.events(run, after=after):
            after = happened.id
            _print_event(happened, _names(store), as_json)
        if state in OVER:
            return
        time.sleep(FOLLOW_S)


def _print_event(happened: "Happened", names: dict[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(vars(happened)))
        return
    say: dict[str, Callable[[dict[str, Any]], str]] = {
        "stances": lambda body: _stances_line(body, names),
        "asked": lambda body: f"round {body['round']} asks {_named(body['nodes'], names)}",
        "answered": lambda body: _answered_line(body, names),
        "round": lambda body: _round_line(body, names),
    }
    kind, body = happened.kind, happened.body
    told = say[kind](body) if kind in say else f"{kind} {body.get('reason', '')}".strip()
    typer.echo(f"{happened.time[11:19]}  {told}")


def _stances_line(body: dict[str, Any], names: dict[str, str]) -> str:
    said = (f"{stance.replace('_', ' ')}: {_named(nodes, names)}" for stance, nodes in sorted(body.items()))
    return "present: " + ("; ".join(said) or "nobody")


def _answered_line(body: dict[str, Any], names: dict[str, str]) -> str:
    line = f"round {body['round']}: {body['answered']} of {body['asked']} answered"
    return f"{line}, {_named([body['node']], names)}: {body['verdict']}" if "node" in body else line


def _named(nodes: Any, names: dict[str, str]) -> str:
    """Names of numbers; an older store kept how many they were."""
    return ", ".join(names.get(str(node), str(node)) for node in nodes) if isinstance(nodes, list) else str(nodes)


def _round_line(body: dict[str, Any], names: dict[str, str]) -> str:
    row = _row(body, body.get("evaluation"), names)
    return "  ".join([f"round {row.pop('round')} {row.pop('outcome')}", *(f"{k}: {v}" for k, v in row.items() if v)])


def _row(record: dict[str, Any], evaluation: dict[str, Any] | None, names: dict[str, str]) -> dict[str, str]:
    def name(node: Any) -> str:
        return _named([node], names)

    measured = evaluation or {}
    return {
        "round": str(record["round"]),
        "outcome": record["outcome"],
        "accepted": _named(record["accepted"], names),
        "refused": ", ".join(f"{name(entry['node'])} ({entry['status']})" for entry in record["refused"]),
        "rejected": ", ".join(f"{name(entry['node'])} ({entry['reason']})" for entry in record["rejected"]),
        "late": _named(record["missing"], names),
        "seconds": f"{sum(record['seconds'].values()):.1f}",
        "measured": ", ".join(f"{key} {value:.3f}" for key, value in measured.items() if isinstance(value, float)),
    }


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        print_table(rows)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        print_table([{"": name.replace("_", " "), " ": str(value)} for name, value in facts.items()])
