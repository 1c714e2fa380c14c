"""Vault and link: starting them, stopping them, watching them, and being one of them."""

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, Watch, node_folders
from shared.environment import QUIET
from shared.errors import SettingsError
from shared.processes.running import EXIT_BY_STATE
from shared.terminal import saying

OF_HEALTH = ("state", "running", "certificate_ends")


def start(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Start vault and link; they are started again whenever they die. Ctrl-C stops them cleanly."""
    from client.link.membership import membership
    from shared.logs import configure
    from shared.processes.running import detach as run_in_background
    from shared.processes.running import require_none
    from shared.processes.supervisor import Child, Supervisor

    places = node_folders(config)
    membership(places.link)
    require_none(places.running)
    me = (sys.executable, "-m", "client")
    if detach:
        command = [*me, "start", "--config", str(config.resolve())]
        with saying("Starting in the background"):
            pid = run_in_background(command, places.logs / "supervisor.log", places.running)
        typer.echo(f"Running in the background as process {pid}. fedvault-node status, logs and stop are for it.")
        return
    configure("supervisor")
    children = [Child(name, (*me, name, "--config", str(config.resolve())), QUIET) for name in ("vault", "link")]
    Supervisor(places.running, places.logs, lambda: children).run()


def stop(config: Config = NODE_TOML) -> None:
    """Stop vault and link. A round in training is lost and stays paid for."""
    from shared.processes import running

    with saying("Waiting for vault and link to end"):
        stopped = running.stop(node_folders(config).running)
    typer.echo("Stopped." if stopped else "It was not running.")


def status(
    watch: Watch = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Health alone, for a program that watches. Exits with 1 if it does not run, with 8 if it does not "
            "answer, with 10 while it starts.",
        ),
    ] = False,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Show what runs, what is trained, what waits for you, and how good the model is here. Stays here."""
    from client.operator.status import node_status
    from client.operator.status_text import health, in_sentences
    from shared.terminal import watched

    if watch and as_json:
        raise SettingsError("Expected --watch or --json, got both.", hint="--json prints one state, for a program.")
    places = node_folders(config)
    if watch:
        watched(lambda: in_sentences(node_status(places)))
        return
    facts = node_status(places)
    shown = {name: facts[name] for name in OF_HEALTH} if check else facts
    sentences = health(facts) if check else in_sentences(facts)
    typer.echo(json.dumps(shown, indent=1) if as_json else "\n".join(sentences))
    ends = facts["certificate_ends"]
    ended = ends is not None and datetime.now(UTC) >= datetime.fromisoformat(ends)
    if check and (facts["state"] != "runs" or ended):
        raise typer.Exit(EXIT_BY_STATE[facts["state"]] or 1)


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it comes.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """The last lines of the node's logs."""
    from shared.processes.log_files import tail

    tail(node_folders(config).logs, follow=follow, start="fedvault-node start --detach")


def vault(config: Config = NODE_TOML) -> None:
    """The process with the data; started by `start`, or alone in a container without a network."""
    from client.operator_service.service import serving_operator
    from client.vault.service.process import serve
    from shared.logs import configure
    from shared.processes.supervisor import leave_with_parent

    configure("vault")
    leave_with_parent()
    serve(config, serving_operator)


def link(config: Config = NODE_TOML) -> None:
    """The process with the network; started by `start`, or alone in a container without data."""
    from client.link.process import serve
    from shared.logs import configure
    from shared.processes.supervisor import leave_with_parent

    configure("link")
    leave_with_parent()
    serve(config)
