"""Write a run's report, and check one."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import HOME, AsJson, HomeOption, RunName, open_store
from server.settings import Home


def report(
    run: RunName,
    receipts: Annotated[
        list[Path] | None, typer.Option("--receipt", help="A node's receipt of this run; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A name in .html, .pdf or .json, or without: all three. Default: report-RUN.")
    ] = None,
    language: Annotated[str, typer.Option(help="en or de.")] = "en",
    audit: Annotated[Path | None, typer.Option(help="An audit of the study, from `fedvault-sim audit`.")] = None,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Write what a run gave and cost, as HTML, PDF and JSON, signed with the server's key; also before its end.

    Example: fedvault-server report r-2026 --receipt north.json --receipt south.json --out pilot.pdf
    """
    from server.certificate_authority import server_identity
    from server.export.run_report import run_report
    from shared.evidence.audit_result import read_audit
    from shared.evidence.delivery import content_of, write_files
    from shared.evidence.delivery import language as known_language
    from shared.evidence.facts import Further
    from shared.evidence.signed_report import sign

    folder = Home(home)
    with open_store(folder) as store:
        chosen = store.run(run)
        facts = run_report(
            store,
            chosen,
            folder.runs / chosen.id / "adapter",
            receipts=[content_of(file).decode(errors="replace") for file in receipts or ()],
            authority=every_authority(folder),
            language=known_language(language),
            issuer=folder.settings().hosts[0],
            further=Further(audit=None if audit is None else read_audit(audit)),
        )
    key, certificate = server_identity(folder.keys)
    made = sign(facts, key, certificate)
    if as_json:
        typer.echo(made.as_json())
        return
    for path in write_files(made, out or Path(f"report-{facts.run.name}"), key):
        typer.echo(str(path))


def verify(
    file: Annotated[Path, typer.Argument(help="A report as HTML, PDF or JSON.")],
    authority: Annotated[
        Path | None, typer.Option(help="The authority.crt of its federation. Default: this server's own.")
    ] = None,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Check a report's signature, arithmetic and page, offline, and whose it is."""
    from shared.evidence.delivery import content_of, verified_lines
    from shared.evidence.signed_report import verify as verify_report

    trusted = every_authority(Home(home)) if authority is None else content_of(authority)
    verified = verify_report(content_of(file), trusted)
    typer.echo(verified.report.model_dump_json(indent=1) if as_json else "\n".join(verified_lines(verified)))


def every_authority(home: Home) -> bytes:
    """Return the certificates of all authorities that this federation ever had: what they signed stays theirs."""
    home.require()
    return b"".join(path.read_bytes() for path in sorted(home.keys.glob("authority*.crt")))
