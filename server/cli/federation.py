"""Commands about the server itself: init, renew, start, halt, status; and the processes that start keeps running."""

import importlib
import json
import sys
from typing import Annotated, Any

import typer

from server.cli.options import HOME, AsJson, HomeOption, open_store
from server.settings import Home
from shared.terminal import saying

PROCESSES = {
    "superlink": "server.flower.superlink",
    "gateway": "server.gateway.process",
    "page": "server.dashboard.remote_page",
    "run": "server.run_process",
}


def init(
    host: Annotated[list[str], typer.Option("--host", help="Name or address that nodes will use; may be repeated.")],
    port: Annotated[int, typer.Option(help="Port that nodes will use.")] = 8443,
    metrics_listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address of Prometheus metrics, which have no login: 0.0.0.0 in a container. Default: loopback.",
        ),
    ] = "",
    home: HomeOption = HOME,
) -> None:
    """Make the folder, the federation's certificate authority and the server's certificate."""
    from server.certificate_authority import create, issue_server
    from shared.errors import SettingsError
    from shared.files import private_folder

    folder = Home(home)
    if folder.config.exists():
        raise SettingsError(f"Expected a new folder, {home} holds a federation.", hint="Choose another --home.")
    private_folder(home)
    create(folder.keys, "FedVault federation")
    certificate = issue_server(folder.keys, host)
    folder.config.write_text(_settings(host, port, metrics_listen))
    typer.echo(f"{home}: a federation at {host[0]}:{port}. Its certificate ends {certificate.expires:%Y-%m-%d}.")
    typer.echo("Next: fedvault-server invite NAME, then fedvault-server start")


def renew(
    authority: Annotated[
        bool, typer.Option("--authority", help="Begin to roll the federation's authority over, long before it ends.")
    ] = False,
    finish: Annotated[bool, typer.Option("--finish", help="End that: only the new authority is trusted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Renew the server's certificate; takes effect with the next start. Nodes renew theirs by themselves."""
    from server import certificate_authority
    from server.certificate_ends import without_newest_authority
    from shared.errors import SettingsError
    from shared.processes.running import read_state

    folder, hosts = Home(home.resolve()), Home(home).settings().hosts
    if not (authority or finish):
        certificate = certificate_authority.issue_server(folder.keys, hosts)
        typer.echo(f"The server's certificate ends {certificate.expires:%Y-%m-%d}. Restart to use it.")
        return
    if authority and finish:
        raise SettingsError("Expected --authority or --finish, got both.", hint="--finish comes weeks later.")
    if read_state(folder.running) is not None:
        # it would go on trusting the old authority alone, and turn away whoever renews with the new one
        raise SettingsError("Expected a server that does not run, this one does.", hint="fedvault-server halt")
    if authority:
        new = certificate_authority.roll_over(folder.keys)
        typer.echo(f"The new authority ends {new.expires:%Y-%m-%d}. Start the server: nodes hear of it as they renew.")
        typer.echo("`status` names those that have not. Once all have: fedvault-server renew --finish")
        return
    with open_store(folder) as store:
        late = without_newest_authority(folder.keys, store.enrolled_names()) or []
    if late and not yes:
        typer.echo(f"These nodes do not know the new authority and would have to be invited back: {', '.join(late)}.")
        typer.confirm("Trust the new authority alone?", abort=True)
    certificate = certificate_authority.finish_roll_over(folder.keys, hosts)
    typer.echo(f"Only the new authority is trusted. The server's certificate ends {certificate.expires:%Y-%m-%d}.")


def start(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Start everything: gateway, Flower's SuperLink behind it, and the run that is wanted. Ctrl-C stops it cleanly."""
    from server.ports import require_free_ports
    from server.processes import supervise
    from shared.files import private_folder
    from shared.logs import configure
    from shared.processes.running import detach as run_in_background
    from shared.processes.running import require_none

    folder = Home(home.resolve())
    folder.settings()
    require_none(folder.running)
    require_free_ports(folder)
    private_folder(folder.folder)
    if detach:
        command = [sys.executable, "-m", "server", "start", "--home", str(folder.folder)]
        with saying("Starting in the background"):
            pid = run_in_background(command, folder.logs / "supervisor.log", folder.running)
        typer.echo(f"Running in the background as process {pid}. Logs: {folder.logs}. fedvault-server halt stops it.")
        return
    configure("supervisor")
    supervise(folder)


def halt(home: HomeOption = HOME) -> None:
    """Stop the server; runs continue when it is started again."""
    from shared.processes.running import stop

    folder = Home(home.resolve())
    folder.require()
    with saying("Waiting for the server's processes to end"):
        stopped = stop(folder.running)
    typer.echo("Stopped." if stopped else "It was not running.")


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every two seconds, until Ctrl-C.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Exit with 1 if it does not run, with 8 if it does not answer, with 10 while it starts."
        ),
    ] = False,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Show what runs, how far the run is or what it waits for, who is present, and when certificates end."""
    from server.operator.facts import present_nodes, status_facts
    from server.operator.status_text import in_sentences
    from shared.errors import SettingsError
    from shared.processes.running import EXIT_BY_STATE
    from shared.terminal import watched

    folder = Home(home.resolve())
    if watch and as_json:
        raise SettingsError("Expected --watch or --json, got both.", hint="--json prints one state, for a program.")

    def sentences(facts: dict[str, Any]) -> list[str]:
        with open_store(folder) as store:
            return in_sentences(facts, store, None if check or not facts["ready"] else present_nodes(folder))

    if watch:
        watched(lambda: sentences(status_facts(folder)))
        return
    facts = status_facts(folder)
    typer.echo(json.dumps(facts, indent=1) if as_json else "\n".join(sentences(facts)))
    if check and (facts["state"] != "runs" or facts["certificate_ended"]):
        raise typer.Exit(EXIT_BY_STATE[facts["state"]] or 1)


def process(name: str, run: str = "", home: HomeOption = HOME) -> None:
    """Run one of the server's own processes; `start` starts them."""
    from shared.logs import configure
    from shared.processes.supervisor import leave_with_parent

    module = importlib.import_module(PROCESSES[name])
    configure(name)  # after the import: Flower brings a log handler of its own
    leave_with_parent()
    if run:
        module.drive(Home(home), run)
    else:
        module.serve(Home(home))


def _settings(hosts: list[str], port: int, metrics_listen: str) -> str:
    metrics = f"metrics_listen = {json.dumps(metrics_listen)}\n" if metrics_listen else ""
    return (
        "# Every key and its meaning: server/SERVER_TOML.md\n"
        f"hosts = {json.dumps(hosts)}\n"
        f"port = {port}\n"
        f"{metrics}"
        '# evaluation = "own.csv"      # a table of your own to measure on, with columns text and label\n'
        '# database = "postgresql+psycopg://user@host/fedvault"\n'
    )
