"""Commands about studies and their runs: plan, run, runs, show, stop, resume, logs, export."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import HOME, AsJson, HomeOption, RunName, Yes, confirm_loss, open_store
from server.cli.printing import print_evaluations, print_event, print_facts, print_rows
from server.operator.round_text import node_names, reason_lines, round_in_flight, round_row, silence_lines
from server.operator.status_text import OVER, paid_round, progress_line, waits_for
from server.settings import Home
from shared.terminal import saying

if TYPE_CHECKING:
    from server.private_evaluation.results import RunEvaluations
    from server.run_store.store import Store
    from server.run_store.values import Run

FOLLOW_S = 1.0
COLUMNS = ("id", "study", "state", "round", "rounds", "created")


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
    with saying("Loading what reads models") as activity:
        from server.forecast.forecast import forecast_study, read_sizes, with_evaluation
        from server.forecast.suggestions import suggest
        from server.forecast.text import as_json as to_json
        from server.forecast.text import show as show_forecast
        from shared.adapted_model.model import layout_of
        from shared.study.declaration import load_study_of

        declared, declared_sizes = load_study_of(study), read_sizes(sizes)
        activity.now("Opening the base model", 0, 3)
        layout = layout_of(declared)
        activity.now("Forecasting the study", 1, 3)
        forecast = forecast_study(
            declared, layout, declared_sizes, epsilon_limit=epsilon_limit, spent_steps=spent_steps
        )
        forecast = with_evaluation(forecast, declared)
        activity.now("Looking for what would help", 2, 3)
        suggestions = suggest(declared, forecast)
    if as_json:
        typer.echo(json.dumps(to_json(forecast, suggestions), indent=1))
        return
    show_forecast(forecast, suggestions)


def run(
    study: Annotated[Path, typer.Argument(help="The study's TOML file.")],
    follow: Annotated[bool, typer.Option("--follow", help="Watch it to its end.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also if updates of small sites are sure to be rejected.")
    ] = False,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Queue a study. It starts as soon as enough nodes have approved it. `plan` says beforehand what to expect."""
    with saying("Loading what reads models") as activity:
        from server.operator import actions

        declared = actions.pinned_study(study, activity.now, force=force)
    if warning := actions.unstated(declared):
        typer.echo(f"warning: {warning}", err=True)
    with open_store(Home(home)) as store:
        numbers = actions.sum_numbers(declared, store)
        queued = actions.queue(store, declared, actions.Operator(actions.this_user()))
        print_facts(queued.as_dict() | ({"secure_sum": numbers} if numbers and as_json else {}), as_json)
        if numbers and not as_json:
            from server.secure_sum.history import announced

            typer.echo(announced(**numbers))
        if not as_json:
            typer.echo("\n".join(_what_comes_next(Home(home), queued, store)))
        if follow:
            _follow(store, queued.id, as_json)


def runs(home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """List every run, newest first."""
    with open_store(Home(home)) as store:
        listed, first = store.runs(), store.next_wanted()
    rows = [run.as_dict() for run in listed]
    if not as_json:
        ahead = None if first is None else first.id
        standings = [{"state": run.standing(ahead), "created": run.created[:16]} for run in listed]
        rows = [{name: row[name] for name in COLUMNS} | words for row, words in zip(rows, standings, strict=True)]
    print_rows(rows, as_json)


def show(run: RunName, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Show a run and its rounds: whose update was accepted or rejected (why), who refused (why), who was missing."""
    from server.secure_sum.history import history_lines, sum_history

    with open_store(Home(home)) as store:
        shown = store.run(run)
        rounds, names, events = store.rounds(shown.id), node_names(store), store.events(shown.id)
        secure_sum, evaluations = sum_history(events), _evaluations(store, shown)
        in_flight = round_in_flight(events, shown.round) if shown.state == "running" else None
        progress = progress_line(shown, store) if shown.state not in OVER else ""
        if shown.state == "failed":
            progress = f"{shown.id} {shown.standing(None)}"
    if as_json:
        history = [record | {"evaluation": evaluation} for record, evaluation in rounds]
        more = {"history": history, "in_flight": in_flight, "nodes": names}
        more |= {"secure_sum": secure_sum} if secure_sum else {}
        more |= {} if evaluations is None else {"evaluations": [one.model_dump(mode="json") for one in evaluations.all]}
        more |= {} if evaluations is None or not evaluations.choice else {"choice": evaluations.choice.model_dump()}
        typer.echo(json.dumps(shown.as_dict() | more, indent=1))
        return
    print_facts(shown.as_dict(), as_json)
    print_rows([round_row(record, evaluation, names) for record, evaluation in rounds], as_json=False)
    records = [record for record, _evaluation in rounds]
    sums = history_lines(secure_sum) if secure_sum else []
    for line in [*sums, *reason_lines(records, events, names), *silence_lines(records, names)]:
        typer.echo(line)
    if evaluations:
        print_evaluations(evaluations, shown.round)
    if progress:
        typer.echo(progress)


def _evaluations(store: "Store", run: "Run") -> "RunEvaluations | None":
    """Return the private evaluations of a run; None where there are none, so that nothing is loaded for them."""
    if not store.evaluations.of_run(run.id):
        return None
    from server.private_evaluation.results import evaluations_of

    return evaluations_of(store, run)


def stop(run: RunName, yes: Yes = False, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Stop a run at once; every finished round is kept, and the one under way is asked again by `resume`."""
    with open_store(Home(home)) as store:
        sentence, _nodes = paid_round(store.run(run), store)
    if sentence:
        confirm_loss(
            f"{sentence} Its updates stay there, and are used only if the run is resumed.", "Stop it?", yes=yes
        )
    name = _want(home, run, wanted=False, as_json=as_json)
    if not as_json:
        typer.echo(f"{name} stops. Continue it with: fedvault-server resume {name}")


def resume(run: RunName, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Continue a run that was stopped or failed, from its last finished round."""
    name = _want(home, run, wanted=True, as_json=as_json)
    if not as_json:
        typer.echo(f"{name} continues.")


def logs(
    run: Annotated[str | None, typer.Argument(help="A run; without it, the processes' own logs.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Print what happened, line by line."""
    from shared.processes.log_files import tail

    folder = Home(home.resolve())
    if run is None:
        folder.require()
        tail(folder.logs, follow=follow, as_json=as_json, start="fedvault-server start --detach")
        return
    with open_store(folder) as store:
        name = store.run(run).id
        if follow:
            _follow(store, name, as_json)
            return
        for event in store.events(name):
            print_event(event, node_names(store), as_json)


def export(
    run: RunName,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    merged: Annotated[bool, typer.Option("--merge", help="A complete model, with the adapter in its weights.")] = False,
    as_onnx: Annotated[bool, typer.Option("--onnx", help="The complete model as a graph, for ONNX Runtime.")] = False,
    for_vllm: Annotated[bool, typer.Option("--vllm", help="The adapter of a language model, for vLLM.")] = False,
    as_gguf: Annotated[bool, typer.Option("--gguf", help="The adapter of a language model, for llama.cpp.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Hand out a finished adapter, or the whole model with it, and its model card; plain transformers loads either.

    With --onnx, nothing is written unless the graph's answers agree with the model's.
    """
    from server.export.forms import asked_form
    from server.operator import actions

    operator = actions.Operator(actions.this_user())
    form = asked_form(merged=merged, onnx=as_onnx, vllm=for_vllm, gguf=as_gguf)
    with open_store(Home(home)) as store, saying("Writing it") if form != "adapter" else nullcontext():
        actions.export(Home(home), store, run, folder, operator, form=form)
    what = "the adapter" if form in ("adapter", "vllm", "gguf") else "the whole model"
    typer.echo(f"{folder}: {what}, its head if it has one, and README.md, its card, which says how to load it.")


def _what_comes_next(home: Home, queued: "Run", store: "Store") -> list[str]:
    """Return what a run that was just queued waits for, in sentences."""
    from shared.processes.running import read_state

    running = read_state(home.running) is not None
    lines = [] if running else ["The server does not run, so no node sees the study yet: fedvault-server start"]
    return [*lines, waits_for(queued, store), "How it goes on: fedvault-server status --watch"]


def _want(home: Path, run: str, *, wanted: bool, as_json: bool) -> str:
    """Write down whether a run is wanted, print it as JSON if that was asked for, and return its whole name."""
    from server.operator import actions

    with open_store(Home(home)) as store:
        after = actions.set_wanted(store, run, actions.Operator(actions.this_user()), wanted=wanted)
        if as_json:
            print_facts(after.as_dict(), as_json)
    return after.id


def _follow(store: "Store", run: str, as_json: bool) -> None:
    after = 0
    while True:
        state = store.run(run).state  # read before the events, so that the last ones are not missed
        for event in store.events(run, after=after):
            after = event.id
            print_event(event, node_names(store), as_json)
        if state in OVER:
            return
        time.sleep(FOLLOW_S)
