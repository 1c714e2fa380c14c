"""`fedvault-node`: what a node's operator sees and decides."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.command_line import VERBOSE, run_command
from shared.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.vault.ledger.state import ApprovedRun
    from client.vault.review.review import StudyReview
    from shared.study.declaration import Study

cli = typer.Typer(
    help="A client node: its data stays here. Begin with: init, then join, then doctor, then start.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Config = Annotated[Path, typer.Option("--config", help="The node's settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StudyName = Annotated[str, typer.Argument(help="A run of `studies`, or the study's TOML file.")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="A dataset of node.toml, if it has several.")]
NODE_TOML = Path("node.toml")
QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What every process that uses Flower has in its environment."""


OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Read by those libraries when they are imported, and never again: a node downloads nothing."""


@cli.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False) -> None:
    os.environ |= OFFLINE | {VERBOSE: "1" if verbose else ""}


@cli.command()
def init(config: Config = NODE_TOML) -> None:
    """Write a node.toml to fill in, and open an empty ledger beside it. Changes nothing that is there."""
    from client.settings import TEMPLATE

    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(TEMPLATE)
    with _review(config).ledger() as ledger:
        typer.echo(f"{config}: fill in your datasets. The ledger has {ledger.height} rows.")


@cli.command()
def join(
    invite: Annotated[Path, typer.Argument(help="The file you got from the server's operator; - reads it as input.")],
    config: Config = NODE_TOML,
) -> None:
    """Join a federation: make this node's key, have it signed. The key never leaves this machine."""
    from client.link.membership import join as enter
    from client.settings import folders, load_node
    from shared.protocol.invite import read_invite

    settings = load_node(config)
    member = enter(read_invite(invite), folders(config, settings).link, settings.server, config.resolve().parent)
    typer.echo(f"Joined {member.server} as {member.name}. The invite is used up: delete it. Next: fedvault-node doctor")


@cli.command()
def leave(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, config: Config = NODE_TOML) -> None:
    """Leave the federation: its key and certificate are deleted, open runs are closed. Ledger and data stay."""
    from client.deployment import side
    from client.link.membership import leave as forget
    from client.link.membership import left_over, membership
    from client.settings import folders, load_node
    from shared.supervisor import stop as end

    places = folders(config, load_node(config))
    if left_over(places.link):
        forget(places.link)
        typer.echo("Removed the key of a join that did not come to its end.")
        return
    member = membership(places.link)
    if not yes:
        typer.confirm(f"Coming back to {member.server} takes a new invite. Leave?", abort=True)
    end(places.running)
    if side().has_vault:
        review = _review(config)
        with review.ledger() as ledger:
            for run in [name for name, run in ledger.state.runs.items() if not run.closed]:
                review.reject(ledger, run)
    forget(places.link)
    typer.echo(f"Left {member.server}. What was released stays released.")


@cli.command()
def doctor(
    study: Annotated[str | None, typer.Argument(help="Also try this study: a file, or a run on offer.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="The dataset to try it on.")] = None,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Find now what would go wrong later. Every failing line says what to do; nothing leaves this machine."""
    from client.operator.doctor import examine

    review = _review(config)
    declared = None if study is None else _declared(review, study)[0]
    chosen = None if declared is None else _only(review, dataset)
    findings = []
    for finding in examine(config, declared, chosen):
        findings.append(asdict(finding))
        if not as_json:
            typer.echo(f"{'ok    ' if finding.ok else 'FAILED'} {finding.check}: {finding.saw}")
            if not finding.ok:
                typer.echo(f"       {finding.todo}")
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


@cli.command()
def start(
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Start vault and link; they are started again whenever they die. Ctrl-C stops them cleanly."""
    import sys

    from client.link.membership import membership
    from client.settings import folders, load_node
    from shared.logs import configure
    from shared.supervisor import Child, Supervisor
    from shared.supervisor import detach as go

    places = folders(config, load_node(config))
    membership(places.link)
    me = (sys.executable, "-m", "client")
    if detach:
        command = [*me, "start", "--config", str(config.resolve())]
        pid = go(command, places.logs / "supervisor.log", places.running)
        typer.echo(f"Running in the background as process {pid}. fedvault-node status, logs and stop are for it.")
        return
    configure("supervisor")
    children = [Child(name, (*me, name, "--config", str(config.resolve())), QUIET) for name in ("vault", "link")]
    Supervisor(places.running, places.logs, lambda: children).run()


@cli.command()
def stop(config: Config = NODE_TOML) -> None:
    """Stop vault and link. A round in training is lost and stays paid for."""
    from client.settings import folders, load_node
    from shared.supervisor import stop as end

    typer.echo("Stopped." if end(folders(config, load_node(config)).running) else "It was not running.")


@cli.command()
def status(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """What runs, whether the server is reached, what is trained, and how good the model is here. Stays here."""
    from client.operator.status import standing
    from client.settings import folders, load_node
    from shared.command_line import print_table

    facts = standing(folders(config, load_node(config)))
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        print_table([{"": name.replace("_", " "), " ": value} for name, value in facts.items()])


@cli.command()
def models(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """List the base models that are here, with the fingerprints that a dataset's `models` takes.

    They are looked for in `models` beside node.toml, a folder each (config.json, tokenizer, *.safetensors), and among
    installed packages. Nothing is ever downloaded for a study.
    """
    from client.settings import folders, load_node
    from shared.base_models.locate import on_this_machine

    places = folders(config, load_node(config))
    found = [{"fingerprint": one.fingerprint, "folder": str(one.directory)} for one in on_this_machine(places.models)]
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:  # no table: a terminal would break what is to be copied
        typer.echo("\n".join(f"{one['fingerprint']}  {one['folder']}" for one in found) or "none")


@cli.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it comes.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """The last lines of the node's logs."""
    from client.settings import folders, load_node
    from shared.supervisor import tail

    tail(folders(config, load_node(config)).logs, follow=follow)


@cli.command()
def studies(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """Studies that the server showed this node, and how you stand to them."""
    from shared.command_line import print_table

    review = _review(config)
    with review.ledger() as ledger:
        known = ledger.state.runs
        rows = [
            {
                "run": offered.run,
                "study": offered.study.study.name,
                "you said": _said(offered.run, known, rejected=offered.rejected),
                "rounds": f"{len(known[offered.run].attempts) if offered.run in known else 0}"
                f" of {offered.study.federation.rounds}",
                "epsilon": offered.study.privacy.epsilon,
            }
            for offered in review.offers.all()
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        print_table(rows)


@cli.command()
def register(
    dataset: Annotated[str, typer.Argument(help="A dataset of node.toml.")],
    config: Config = NODE_TOML,
) -> None:
    """Enter a dataset's records before any study: who shares a budget is settled now. Needed by within-policy."""
    review = _review(config)
    asked = review.read(dataset)
    with review.ledger() as ledger:
        review.register(ledger, asked)
        others = sorted(ledger.state.account(dataset) - {dataset})
        typer.echo(
            f"Registered. Row {ledger.height} of the ledger. Shares records with: {', '.join(others) or 'none'}."
        )


@cli.command()
def show(study: StudyName, dataset: Dataset = None, config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """What a study asks of a dataset: what leaves, what it costs, what the policy says."""
    review = _review(config)
    declared, _run = _declared(review, study)
    question = review.ask(declared, _only(review, dataset))
    ways = review.ways_to_send(declared)
    if as_json:
        typer.echo(json.dumps(asdict(question) | {"bytes_by_way": ways}, indent=1))
        return
    typer.echo(question.in_words)
    typer.echo("Bytes that a node sends in a round, this way and others:")
    for way, size in ways.items():
        chosen = "  <- this study" if way.endswith(f" {question.wire}") else ""
        typer.echo(f"  {way:<29}{size:>14,}{chosen}")
    for objection in question.objections:
        typer.echo(f"The policy says no: {objection}.")
    if question.epsilon_after > question.epsilon_limit:
        typer.echo("The budget says no: it does not fit.")


@cli.command()
def approve(
    study: StudyName,
    dataset: Dataset = None,
    run: Annotated[str | None, typer.Option("--run", help="With a file: the run that is approved.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Say yes to one study run: its worst case is earmarked, the records are kept as they are now."""
    review = _review(config)
    declared, offered = _declared(review, study)
    named = run or offered
    if named is None:
        raise SettingsError("Expected --run with a study file.", hint="Or name a run of `fedvault-node studies`.")
    chosen = _only(review, dataset)
    reviewed = review.review(declared, chosen)
    typer.echo(reviewed.question.in_words)
    if not yes:
        # the vault goes on meanwhile; whether it still fits is looked at again
        typer.confirm("Approve?", abort=True)
    with review.ledger() as ledger:
        review.approve(ledger, reviewed, named)
        typer.echo(f"Approved. Row {ledger.height} of the ledger, {ledger.head[:16]}.")


@cli.command()
def reject(
    run: Annotated[str, typer.Argument(help="A run of `studies`, or the beginning of its name.")],
    config: Config = NODE_TOML,
) -> None:
    """Say no to a study run, or end one that was approved: what it earmarked and did not use is given back."""
    review = _review(config)
    with review.ledger() as ledger:
        name = review.reject(ledger, run)
    typer.echo(f"{name} is rejected.")


@cli.command()
def receipt(
    run: Annotated[str, typer.Argument(help="A run of the ledger.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write it; default: print.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Where the ledger is and no key: for `sign`.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """What a run cost, signed with this node's key, for an auditor. Names no dataset and counts no records."""
    from client.deployment import side
    from client.link.membership import membership
    from client.operator.receipts import sign, statement

    if not (unsigned or side().has_link):
        raise SettingsError(
            "Expected --unsigned where the node's key is not.", hint="Then `sign` in the link's container."
        )
    review = _review(config)
    member = None if unsigned else membership(review.folders.link)
    with review.ledger() as ledger:
        stated = statement(ledger, run)
    if member is not None:
        stated = sign(stated, member.key(), member.certificate_path.read_text())
    _print_or_write(stated.as_json(), out)


@cli.command()
def sign(
    file: Annotated[Path, typer.Argument(help="What `receipt --unsigned` gave; - reads it as input.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write it; default: print.")] = None,
    config: Config = NODE_TOML,
) -> None:
    """Sign a receipt where this node's key is and no ledger: in the link's container."""
    import sys

    from client.link.membership import membership
    from client.operator.receipts import read_statement
    from client.operator.receipts import sign as put_key
    from client.settings import folders, load_node

    member = membership(folders(config, load_node(config)).link)
    stated = read_statement(sys.stdin.read() if file == Path("-") else _text_of(file))
    _print_or_write(put_key(stated, member.key(), member.certificate_path.read_text()).as_json(), out)


@cli.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A receipt.")],
    authority: Annotated[
        Path | None, typer.Option("--authority", help="The federation's authority.crt, from the server's operator.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a receipt's signature and arithmetic, without any network; with --authority also whose it is."""
    from client.operator.receipts import signer
    from client.operator.receipts import verify as check

    found = check(_text_of(file))
    signed_by = signer(found, None if authority is None else _text_of(authority).encode())
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"signer": asdict(signed_by)}, indent=1))
        return
    typer.echo(
        f"Valid. Run {found.run} of study {found.study_sha256[:16]}: {len(found.rounds_paid)} rounds paid, "
        f"epsilon {found.epsilon:.3f} at delta {found.delta:g}, ledger row {found.ledger_height}, "
        f"issued {found.issued}."
    )
    typer.echo(f"Signed with the key {signed_by.fingerprint}.")
    typer.echo(f"It is {signed_by.name}'s." if signed_by.name else "Whose key that is, only --authority can tell.")


@cli.command()
def backup(
    archive: Annotated[Path, typer.Argument(help="A new .tar.gz file; holds private data and the node's key.")],
    config: Config = NODE_TOML,
) -> None:
    """Back up ledger, keys and snapshots. Restoring an old one is noticed: the ledger's second copy is not in it."""
    from client.operator.backup import back_up

    back_up(_review(config), archive)
    typer.echo(f"{archive}: keep it as you keep the data itself.")


@cli.command(hidden=True)
def vault(config: Config = NODE_TOML) -> None:
    """The process with the data; started by `start`, or alone in a container without a network."""
    from client.vault.service.process import serve
    from shared.logs import configure
    from shared.supervisor import leave_with_parent

    configure("vault")
    leave_with_parent()
    serve(config)


@cli.command(hidden=True)
def link(config: Config = NODE_TOML) -> None:
    """The process with the network; started by `start`, or alone in a container without data."""
    from client.link.process import serve
    from shared.logs import configure
    from shared.supervisor import leave_with_parent

    configure("link")
    leave_with_parent()
    serve(config)


@cli.command()
def ledger(
    verify: Annotated[bool, typer.Option("--verify", help="Only say whether it is whole.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write every row that can be read to a JSON-lines file.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Go on without what is missing; lowers nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Spent, earmarked and left, by dataset, and how many more rounds of each study fit. Verifies every row."""
    from client.operator import ledger_report as accounts

    review = _review(config)
    if export is not None:
        typer.echo(f"{export}: {accounts.export(review, export)} rows.", err=True)
    if accept:
        typer.echo(accounts.consequences(review), err=True)
        if not yes:
            typer.confirm("Go on without what is missing?", abort=True, err=True)
        accounts.go_on(review)
    found = accounts.figures(review)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    elif verify:
        typer.echo(f"Whole: {found['rows']} rows, head {found['head']}.")
    else:
        accounts.show(found)


@cli.command()
def withdraw(
    dataset: Annotated[str, typer.Argument(help="A dataset of the ledger.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """A tombstone: no further rounds on these records, in any dataset. What was released stays released."""
    from client.operator.withdrawal import withdraw as end
    from shared.command_line import print_table

    if not yes:
        typer.confirm(f"No study will ever train on {dataset!r} again. Withdraw?", abort=True)
    descendants = end(_review(config), dataset)
    typer.echo("Withdrawn. Snapshots and cached activations are deleted. Runs whose adapters descend from its records:")
    print_table([{name.replace("_", " "): value for name, value in asdict(found).items()} for found in descendants])
    typer.echo("Nothing is unlearned by this.")


def main() -> None:
    """Entry point."""
    run_command(cli)


def _review(config: Path) -> "StudyReview":
    from client.vault.review.review import StudyReview

    return StudyReview(config)


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        raise SettingsError(f"Expected a text file, got {file}, which cannot be read.") from None


def _print_or_write(written: str, out: Path | None) -> None:
    if out is None:
        typer.echo(written, nl=False)
    else:
        out.write_text(written)


def _declared(review: "StudyReview", study: str) -> "tuple[Study, str | None]":
    """A study from a file, or from an offer with the run it was offered for."""
    from shared.study.declaration import load_study

    if study.endswith(".toml"):
        return load_study(Path(study)), None
    offered = review.offers.find(study)
    return offered.study, offered.run


def _only(review: "StudyReview", dataset: str | None) -> str:
    names = list(review.settings.datasets)
    if dataset is None and len(names) == 1:
        return names[0]
    if dataset is None:
        raise SettingsError(f"Expected --dataset with one of {', '.join(names) or 'none'}, got nothing.")
    return dataset


def _said(run: str, known: "Mapping[str, ApprovedRun]", *, rejected: bool) -> str:
    if rejected:
        return "no"
    if run not in known:
        return "nothing yet"
    return "yes, and closed it" if known[run].closed else "yes"
