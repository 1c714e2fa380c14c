"""Vault and link: starting them, stopping them, watching them, and being one of them."""

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, Watch, node_folders
from shared.environment import QUIET
from shared.errors import SettingsError
from shared.supervisor import EXIT_STARTING
from shared.terminal import saying


def start(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Start vault and link; they are started again whenever they die. Ctrl-C stops them cleanly."""
    from client.link.membership import membership
    from shared import supervisor
    from shared.logs import configure

    places = node_folders(config)
    membership(places.link)
    me = (sys.executable, "-m", "client")
    if detach:
        command = [*me, "start", "--config", str(config.resolve())]
        with saying("Starting in the background"):
            pid = supervisor.detach(command, places.logs / "supervisor.log", places.running)
        typer.echo(f"Running in the background as process {pid}. fedvault-node status, logs and stop are for it.")
        return
    configure("supervisor")
    children = [
        supervisor.Child(name, (*me, name, "--config", str(config.resolve())), QUIET) for name in ("vault", "link")
    ]
    supervisor.Supervisor(places.running, places.logs, lambda: children).run()


def stop(config: Config = NODE_TOML) -> None:
    """Stop vault and link. A round in training is lost and stays paid for."""
    from shared import supervisor

    with saying("Waiting for vault and link to end"):
        stopped = supervisor.stop(node_folders(config).running)
    typer.echo("Stopped." if stopped else "It was not running.")


def status(
    watch: Watch = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 1 unless everything runs and is connected, with 10 while it starts."),
    ] = False,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Show what runs, what is trained, what waits for you, and how good the model is here. Stays here."""
    from client.operator.status import node_status
    from client.operator.status_text import in_sentences
    from shared.terminal import watched

    if watch and as_json:
        raise SettingsError("Expected --watch or --json, got both.", hint="--json prints one state, for a program.")
    places = node_folders(config)
    if watch:
        watched(lambda: in_sentences(node_status(places)))
        return
    facts = node_status(places)
    typer.echo(json.dumps(facts, indent=1) if as_json else "\n".join(in_sentences(facts)))
    ends = facts["certificate_ends"]
    ended = ends is not None and datetime.now(UTC) >= datetime.fromisoformat(ends)
    if check and (facts["state"] != "runs" or ended):
        raise typer.Exit(EXIT_STARTING if facts["state"] == "starting" else 1)


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it comes.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """The last lines of the node's logs."""
    from shared.supervisor import tail

    tail(node_folders(config).logs, follow=follow)


def vault(config: Config = NODE_TOML) -> None:
    """The process with the data; started by `start`, or alone in a container without a network."""
    from client.vault.service.process import serve
    from shared.logs import configure
    from shared.supervisor import leave_with_parent

    configure("vault")
    leave_with_parent()
    serve(config)


def link(config: Config = NODE_TOML) -> None:
    """The process with the network; started by `start`, or alone in a container without data."""
    from client.link.process import serve
    from shared.logs import configure
    from shared.supervisor import leave_with_parent

    configure("link")
    leave_with_parent()
    serve(config)
