"""Commands about operators at other machines: operator, operators."""

import secrets
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import HOME, STDOUT, AsJson, HomeOption, open_store
from server.cli.printing import print_rows
from server.settings import Home

PASSPHRASE_BYTES = 15


def operator(
    name: Annotated[str, typer.Argument(help="Of the person; it stands in the log beside whatever is done.")],
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="May invite, revoke, run, stop, export too. Otherwise: only look.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=397, help="Days until it ends.")] = 90,
    pem: Annotated[bool, typer.Option("--pem", help="For a program: key and certificate as text.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write it, - to print it; default NAME.p12 or NAME.pem.")
    ] = None,
    home: HomeOption = HOME,
) -> None:
    """Issue a certificate with which a person sees the server's page from another machine."""
    from server.operator import actions, remote_operators
    from shared.files import write_private

    folder, path = Home(home), out or Path(f"{name}.{'pem' if pem else 'p12'}")
    with open_store(folder) as store:
        issuer = actions.Operator(actions.this_user())
        issued = remote_operators.issue_certificate(folder, store, name, issuer, days=days, may_act=allow_actions)
    passphrase = secrets.token_urlsafe(PASSPHRASE_BYTES)
    content = issued.as_pem() if pem else issued.as_pkcs12(passphrase)
    if path == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        write_private(path, content)
    # what is printed with `--out -` is the file alone
    settings, say = folder.settings(), partial(typer.echo, err=path == STDOUT)
    may = "may act" if allow_actions else "may look, and change nothing"
    say(f"{path}: {name} {may}, until {issued.certificate.not_valid_after_utc:%Y-%m-%d}. Certificate {issued.serial}.")
    if not pem:
        say(f"Its passphrase, to be handed over by another way: {passphrase}")
    say(f"The page: https://{settings.hosts[0]}:{settings.port}/operator/")
    if not settings.operators:
        say("It is not open yet: set operators = true in server.toml, then halt and start.")


def list_operators(home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """List operators' certificates: who may see the page from another machine, what each may do, until when."""
    with open_store(Home(home)) as store:
        now = datetime.now(UTC)
        rows = [
            {
                "name": one.name,
                "status": one.status(now),
                "may": "act" if one.may_act else "look",
                "issued": one.issued[:19],
                "by": one.issued_by,
                "ends": one.expires[:10],
                "certificate": one.serial,
            }
            for one in store.operators.certificates()
        ]
    print_rows(rows, as_json)
