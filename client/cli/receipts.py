"""Receipts for an auditor: issuing one, signing one elsewhere, checking one."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, node_folders, open_node, print_or_write, text_of
from shared.errors import SettingsError
from shared.files import named_after

Out = Annotated[Path | None, typer.Option("--out", help="Where to write it; default: print.")]


def receipt(
    run: Annotated[str, typer.Argument(help="A run of the ledger.")],
    out: Out = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Where the ledger is and no key: for `sign`.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Write what a run cost, signed with this node's key, for an auditor. Names no dataset and counts no records."""
    from client.deployment import deployment
    from client.link.membership import membership
    from client.operator.receipts import statement
    from shared.evidence import receipt as receipts

    if not (unsigned or deployment().has_link):
        raise SettingsError(
            "Expected --unsigned where the node's key is not.", hint="Then `sign` in the link's container."
        )
    node = open_node(config)
    member = None if unsigned else membership(node.folders.link)
    with node.open_ledger() as ledger:
        stated = statement(ledger, run)
    if member is not None:
        stated = receipts.sign(stated, member.key(), member.certificate_path.read_text())
    print_or_write(stated.as_json(), out)


def sign(
    file: Annotated[Path, typer.Argument(help="What `receipt` or `report` gave with --unsigned; - reads it.")],
    out: Out = None,
    config: Config = NODE_TOML,
) -> None:
    """Sign a receipt or a report where this node's key is and no ledger: in the link's container."""
    from client.link.membership import membership
    from shared.evidence import receipt as receipts
    from shared.evidence.delivery import is_report, write_files
    from shared.evidence.signed_report import read_unsigned
    from shared.evidence.signed_report import sign as sign_report

    member = membership(node_folders(config).link)
    text = sys.stdin.read() if file == Path("-") else text_of(file)
    if is_report(text.encode()):
        facts, key = read_unsigned(text, issuer=member.name), member.key()
        made = sign_report(facts, key, member.certificate_path.read_text())
        for path in write_files(made, out or Path(f"report-{named_after(facts.run.name)}"), key):
            typer.echo(str(path))
        return
    stated = receipts.read_statement(text)
    print_or_write(receipts.sign(stated, member.key(), member.certificate_path.read_text()).as_json(), out)


def verify(
    file: Annotated[Path, typer.Argument(help="A receipt, or a report as HTML, PDF or JSON.")],
    authority: Annotated[
        Path | None, typer.Option("--authority", help="The federation's authority.crt, from the server's operator.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check signature and arithmetic of a receipt or a report, offline; with --authority also whose it is."""
    from shared.evidence import receipt as receipts
    from shared.evidence.delivery import content_of, is_report, verified_lines
    from shared.evidence.signed_report import verify as verify_report
    from shared.privacy.in_words import if_all_collude, in_words

    content = content_of(file)
    if is_report(content):
        checked = verify_report(content, None if authority is None else content_of(authority))
        typer.echo(checked.report.model_dump_json(indent=1) if as_json else "\n".join(verified_lines(checked)))
        return
    verified = receipts.verify(text_of(file))
    signer = receipts.signer(verified, None if authority is None else text_of(authority).encode())
    if as_json:
        typer.echo(json.dumps(asdict(verified) | {"signer": asdict(signer)}, indent=1))
        return
    typer.echo(
        f"Valid. Run {verified.run} of study {verified.study_sha256[:16]}: {len(verified.rounds_paid)} rounds paid, "
        f"epsilon {verified.epsilon:.3f} at delta {verified.delta:g}, ledger row {verified.ledger_height}, "
        f"issued {verified.issued}."
    )
    typer.echo(in_words(verified.epsilon, "unit of privacy"))
    if verified.epsilon_if_all_collude is not None:
        typer.echo(
            f"It added a part of the noise: that holds while at most {verified.release['colluders']} of the "
            f"{verified.release['nodes']} nodes collude; if all others do, "
            f"{if_all_collude(verified.epsilon_if_all_collude)}."
        )
    typer.echo(f"Signed with the key {signer.fingerprint}.")
    typer.echo(f"It is {signer.name}'s." if signer.name else "Whose key that is, only --authority can tell.")
