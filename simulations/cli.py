"""`fedvault-sim`: run scenarios, read their results, fetch what they need."""

import json
import logging
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from shared.command_line import VERBOSE, run_command
from shared.explanations.options import Columns, Count, Rows
from shared.logs import without_stopping
from simulations.datasets.command import data
from simulations.outlets import export
from simulations.quiet import ENVIRONMENT, quiet_libraries
from simulations.sweeps.search_command import search

INTERRUPTED = 130

cli = typer.Typer(
    help="Simulate private federated fine-tuning on this machine: the same study, server and client code as in a "
    "deployment, with results that may be shown because nothing in them is anybody's secret.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.add_typer(data, name="data")
cli.command()(export)
cli.command()(search)


@cli.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks and every log line.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    os.environ[VERBOSE] = "1" if verbose else ""


@cli.command()
def run(
    scenario: Annotated[Path, typer.Argument(help="A TOML file; `fedvault-sim scenarios` lists the ones that ship.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one value; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Result folder. Default: runs/<name of the file>.")] = None,
    engine: Annotated[str | None, typer.Option(help="local (our process pool) or ray (Flower's engine).")] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Address of a running Ray cluster whose machines all see the result folder."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the result folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of tables.")] = False,
) -> None:
    """Run a scenario: every arm, live progress, then tables, result.json, report.html and the adapter.

    Example: fedvault-sim run simulations/scenarios/vader.toml --set privacy.epsilon=1 --out runs/strict
    """
    from simulations import api

    wanted = [*(changes or []), *([f'simulation.engine="{engine}"'] if engine else [])]
    loaded, folder = api.load_scenario(scenario, wanted), out or Path("runs") / scenario.stem

    # only now what takes seconds to import: a mistake in the file is said at once
    from rich.console import Console

    quiet_libraries()
    from simulations.progress import progress_for
    from simulations.results.result import as_json as to_json
    from simulations.results.tables import render

    console, beside = Console(), Console(stderr=True)
    try:
        with progress_for(beside, silent=as_json) as progress:
            result = api.run(loaded, out=folder, resume=resume, progress=progress, ray_address=ray_address).figures
    except KeyboardInterrupt:
        settings = [part for change in wanted for part in ("--set", change)]
        settings += ["--ray-address", ray_address] if ray_address else []
        again = shlex.join(["fedvault-sim", "run", str(scenario), "--out", str(folder), "--resume", *settings])
        beside.print(f"\nStopped. Finished rounds are kept; go on with:\n  {again}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(to_json(result))
        return
    with without_stopping("The tables"):
        render(result, console)
    written = [str(path) for name in ("report.html", "result.json", "adapter") if (path := folder / name).exists()]
    console.print("\n" + "   ".join(written), highlight=False, soft_wrap=True)


@cli.command()
def sweep(
    scenario: Annotated[Path, typer.Argument(help="A TOML file.")],
    over: Annotated[
        list[str],
        typer.Option("--over", metavar="KEY=V,V,…", help="Values of one key, or FIRST..LAST; may be repeated."),
    ],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one value; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/<name of the file>-sweep.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Runs at a time; they share the cores.")] = 1,
    choose: Annotated[
        bool, typer.Option("--choose", help="Compare on validation records; run only the best on the held-out ones.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Address of a running Ray cluster, for simulation.engine=ray."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print sweep.json instead of tables.")] = False,
) -> None:
    """Run a scenario at many settings and seeds: means, intervals, paired tests, one table and one picture.

    A sweep that was stopped goes on with the same command. Exits with 1 if a run failed; the others are done then.

    Example: fedvault-sim sweep my-study.toml --over privacy.epsilon=1,3,8 --over simulation.seed=1..5
    """
    from simulations.sweeps.command import SweepOptions, sweep_file

    folder = out or Path("runs") / f"{scenario.stem}-sweep"
    how = SweepOptions(at_once, choose, ray_address, as_json)
    try:
        passed = sweep_file(scenario, over, changes or [], folder, how)
    except KeyboardInterrupt:
        typer.echo("\nStopped. What is finished is kept; the same command goes on.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not passed:
        raise typer.Exit(1)


@cli.command()
def plan(
    file: Annotated[Path, typer.Argument(help="A study or a scenario, as TOML.")],
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Declared size of every node. Default: of a scenario's sites, from its data."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one value; may be repeated.")
    ] = None,
    epsilon_limit: Annotated[
        float | None, typer.Option(help="The most a node's dataset may ever spend. Default: the study's epsilon.")
    ] = None,
    spent_steps: Annotated[int, typer.Option(min=0, help="Steps of such studies that its ledger holds already.")] = 0,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a typical record, for the timing. Default: the most the task allows."),
    ] = None,
    timing: Annotated[bool, typer.Option(help="Measure real private steps here; needs the model.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a study will cost every node, how long it takes, and whether it can learn, before anybody spends budget.

    Example: fedvault-sim plan study.toml --sizes 3700,4200,1600 --set adapter.rank=4
    """
    from rich.console import Console

    from server.forecast.text import as_json as to_json
    from server.forecast.text import show
    from simulations.forecast import plan_file, timed

    quiet_libraries()
    study, forecast, suggestions, records_per_unit = plan_file(
        file, sizes, changes or [], epsilon_limit=epsilon_limit, spent_steps=spent_steps
    )
    minutes = {}
    if timing:
        with Console(stderr=True).status("Timing private steps on this machine"):
            minutes = timed(study, forecast, records_per_unit, tokens)
    if as_json:
        typer.echo(json.dumps(to_json(forecast, suggestions) | {"minutes": minutes}, indent=1))
        return
    show(
        forecast,
        suggestions,
        {node: {k.replace("_", " "): f"{v:.2g}" for k, v in m.items()} for node, m in minutes.items()},
    )


@cli.command()
def audit(
    scenario: Annotated[
        Path | None, typer.Argument(help="A TOML file. Without one, what training claims at some epsilons is audited.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one value; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for audit.json; a finished run there gets it into its result too.")
    ] = None,
    canaries: Annotated[int, typer.Option(min=320, help="Planted records; more of them see more.")] = 5000,
    adapters: Annotated[int, typer.Option(min=4, max=64, help="Shadow adapters of each kind; a scenario's.")] = 8,
    epsilons: Annotated[
        list[float] | None, typer.Option("--epsilon", help="Claims, without a scenario. Default: 1, 3 and 8.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Attack training, and print the ε that it shows beside the one that is promised.

    Exits with 1 if a promise is refuted, or if a fault that is put in is not caught where it can be.

    Example: fedvault-sim audit simulations/scenarios/vader.toml --out runs/vader
    """
    quiet_libraries()
    logging.getLogger("simulations").setLevel(logging.ERROR)
    from simulations.audit import command

    if scenario is None:
        passed = command.audit_claims(epsilons, canaries, as_json=as_json)
    else:
        folder = out or Path("runs") / scenario.stem
        passed = command.audit_file(
            scenario, changes or [], folder, canaries=canaries, adapters=adapters, as_json=as_json
        )
    if not passed:
        raise typer.Exit(1)


@cli.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="A result folder; several, if only their seeds differ.")],
    out: Annotated[
        Path | None,
        typer.Option(help="report.html, .pdf or .json; without one of these, all three. Default: in the first folder."),
    ] = None,
    language: Annotated[str, typer.Option(help="en or de.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of tables.")] = False,
) -> None:
    """Show a finished run again, and write its report: over several seeds, with intervals over them.

    Example: fedvault-sim report runs/first runs/second runs/third --out three-seeds.pdf
    """
    from rich.console import Console

    from shared.evidence.delivery import language as known_language
    from shared.evidence.delivery import write_files
    from shared.evidence.signed_report import SignedReport
    from simulations.results.report import report_of
    from simulations.results.result import as_json as to_json
    from simulations.results.result import read_result
    from simulations.results.tables import render

    results = [read_result(folder / "result.json") for folder in folders]
    made = SignedReport(report_of(results, language=known_language(language)))
    for path in write_files(made, out or folders[0] / "report"):
        typer.echo(str(path), err=True)
    for result in results:
        if as_json:
            typer.echo(to_json(result))
        else:
            render(result, Console())


@cli.command()
def board(
    folders: Annotated[list[Path], typer.Argument(help="Result folders, or folders that hold some.")],
    export: Annotated[
        Path | None,
        typer.Option(help="Write the board: FILE.html to mail, or a new folder with every run's report beside it."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="section.key=value", help="Only runs with this; may be repeated.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine; 0 takes one that is free.")] = 0,
) -> None:
    """Show runs side by side: every arm's curve, differences paired over seeds, ε against quality, and what it took.

    Example: fedvault-sim board runs --where privacy.epsilon=3 --export board.html
    """
    from shared.web.process import serve
    from simulations.board.export import board_pages, export_board
    from simulations.board.runs import matching, parse_filter, read_runs
    from simulations.board.site import BoardSite

    read, wanted = read_runs(folders), parse_filter(where or [])
    if export is not None:
        typer.echo(str(export_board(read, matching(read.runs, wanted), export)))
        return
    pages = board_pages(", ".join(folder.name or str(folder) for folder in folders))
    serve(BoardSite(folders, wanted, pages).routes(), pages, say=typer.echo, port=port)


@cli.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A report: HTML, PDF or JSON.")],
    authority: Annotated[
        Path | None, typer.Option(help="The authority.crt of a federation whose report it is.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report's figures.")] = False,
) -> None:
    """Check that a report's page shows the figures in it, and of a federation's report also whose it is."""
    from shared.evidence.delivery import content_of, verified_lines
    from shared.evidence.signed_report import verify as verify_report

    verified = verify_report(content_of(file), None if authority is None else content_of(authority))
    typer.echo(verified.report.model_dump_json(indent=1) if as_json else "\n".join(verified_lines(verified)))


@cli.command()
def track(
    folder: Annotated[Path, typer.Argument(help="A result folder.")],
    mlflow: Annotated[
        str, typer.Option(metavar="URI", help="URI of an MLflow server, as in https://mlflow.example.org.")
    ],
) -> None:
    """Send a finished run to MLflow: settings, metrics by round and arm, ε by site, report and adapter.

    Sent again, only what is new is added.

    Example: fedvault-sim track runs/vader --mlflow sqlite:///mlflow.db
    """
    from server.tracking.mlflow_server import send
    from simulations.results.curves import curves_of
    from simulations.results.result import read_result

    typer.echo(f"{folder} is MLflow's run {send(mlflow, curves_of(read_result(folder / 'result.json'), folder))}.")


@cli.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A result folder, whose adapter is explained.")],
    table: Rows,
    columns: Columns = None,
    count: Count = 5,
    out: Annotated[Path | None, typer.Option(help="Folder of the page. Default: RUN/explained.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Show what a model's answers rest on: words of a text, or cells of an image or a spectrogram.

    Example: fedvault-sim explain runs/vader data/vader/vader.csv --rows 10
    """
    quiet_libraries()
    from shared.explanations.command import explain_table
    from simulations.run_folder import require_result

    require_result(run)
    explain_table(run / "adapter", table, columns or [], count, out or run / "explained", typer.echo, in_json=as_json)


@cli.command()
def scenarios(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the scenarios that ship: what each one shows, on which evidence, and what to type."""
    from simulations.experiment.catalogue import catalogue

    rows = catalogue()
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=1))
        return
    for row in rows:
        lines = (f"{row.name} ({row.task})", row.shows, f"Evidence: {row.evidence}", *(f"$ {c}" for c in row.commands))
        typer.echo("\n  ".join(lines))


def main() -> None:
    """Run `fedvault-sim`."""
    os.environ |= ENVIRONMENT
    run_command(cli)


if __name__ == "__main__":
    main()
