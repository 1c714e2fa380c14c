"""Write and check a run's report, and print the ledger's history."""

import json
from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, open_node
from shared.errors import PeerError, SettingsError
from shared.files import named_after


def report(
    run: Annotated[str | None, typer.Argument(help="A run of the ledger. Default: the one approved last.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A name in .html, .pdf or .json, or without: all three. Default: report-RUN.")
    ] = None,
    language: Annotated[str, typer.Option(help="en or de.")] = "en",
    server_report: Annotated[
        Path | None, typer.Option(help="The server's own report of this run: how often it counts this node.")
    ] = None,
    audit: Annotated[Path | None, typer.Option(help="An audit of the study, from `fedvault-sim audit`.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Where the ledger is and no key: for `sign`.")] = False,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Write what one run took from this node, as HTML, PDF and JSON, signed: for whoever decides or audits.

    It names no dataset and counts no records. Also of a run that ended early, or whose records were withdrawn.

    Example: fedvault-node report r-20261128-1a2b3c4d --out pilot.pdf --language de
    """
    from client.deployment import deployment
    from client.evidence.run_report import run_report
    from client.link.membership import membership
    from shared.evidence.audit_result import read_audit
    from shared.evidence.delivery import language as known_language
    from shared.evidence.delivery import write_files
    from shared.evidence.facts import Further
    from shared.evidence.signed_report import SignedReport, sign

    if not (unsigned or deployment().has_link):
        raise SettingsError(
            "Expected --unsigned where the node's key is not.", hint="Then `sign` in the link's container."
        )
    node = open_node(config)
    member = None if unsigned else membership(node.folders.link)
    name = "" if member is None else member.name
    facts = run_report(
        node,
        run,
        language=known_language(language),
        issuer=name,
        further=Further(audit=None if audit is None else read_audit(audit)),
    )
    if server_report is not None:
        if member is None:
            raise SettingsError("Expected --server-report where the node's name and its federation are known.")
        counted = rounds_counted(server_report, member.authority_path, facts.run.name, member.name)
        facts = facts.model_copy(update={"server_rounds": counted})
    if member is None:
        typer.echo(SignedReport(facts).as_json())
        return
    key = member.key()
    made = sign(facts, key, member.certificate_path.read_text())
    if as_json:
        typer.echo(made.as_json())
        return
    for path in write_files(made, out or Path(f"report-{named_after(facts.run.name)}"), key):
        typer.echo(str(path))


def rounds_counted(file: Path, authority: Path, run: str, node: str) -> int:
    """Return how many rounds of a run the server's own signed report counts for a node.

    Raises:
        PeerError: it is no report of this run by this federation's server, or does not name the node.
    """
    from shared.evidence.delivery import content_of
    from shared.evidence.signed_report import verify

    report = verify(content_of(file), content_of(authority)).report
    counted = [house.rounds for house in report.houses if house.name == node]
    if report.kind != "server" or report.run.name != run or len(counted) != 1:
        raise PeerError(f"Expected the server's report of {run!r} with {node!r} in it, got another.")
    return counted[0]


def history(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """Tell the ledger as sentences, oldest first: what was registered, decided, charged, and what left."""
    from client.evidence.history import history as rows_of
    from client.evidence.history import lines

    rows = rows_of(open_node(config))
    typer.echo(json.dumps(rows, indent=1) if as_json else "\n".join(lines(rows)))
