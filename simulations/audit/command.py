"""Do what `fedvault-sim audit` does: attack, print, and put the outcome where reports and cards read it."""

import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from shared.errors import SettingsError
from shared.evidence.audit_result import AuditResult, sentences, write_audit
from simulations.audit import claims
from simulations.audit.audited_site import Claim
from simulations.audit.scenario_audit import attacks, audit_scenario
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario, data_path, load
from simulations.results.model_card import write_card
from simulations.results.report import write_report
from simulations.results.result import Result, read_result, write_result


def audit_claims(epsilons: Sequence[float] | None, canaries: int, *, as_json: bool) -> bool:
    """Audit what training claims at some epsilons; returns false if one is refuted or a fault escapes."""
    torch.set_num_threads(1)  # products are so small that further threads only wait for one another
    wanted = [
        Claim(each, sampling_rate=claims.SAMPLING_RATE, rounds=claims.ROUNDS, canaries=canaries)
        for each in epsilons or claims.EPSILONS
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("auditing") as status:
        for row in chain(claims.audits(wanted, Path(folder)), claims.sum_audits(wanted, Path(folder))):
            rows.append(row)
            status.update(f"auditing, {len(rows)} rows so far")
    if as_json:
        typer.echo(claims.as_json(rows))
    else:
        Console().print(claims.table(rows))
    return all(row.as_expected for row in rows)


def audit_file(
    file: Path, changes: Sequence[str], folder: Path, *, canaries: int, adapters: int, as_json: bool
) -> bool:
    """Audit a scenario and write audit.json; returns false if a promise is refuted or a fault escapes.

    Raises:
        SettingsError: the folder holds a run of another study.
    """
    scenario = load(file, changes)
    made, written = audited_in(scenario, data_path(scenario, file), folder, canaries=canaries, adapters=adapters)
    if as_json:
        typer.echo(made.model_dump_json(indent=1))
    else:
        for sentence in sentences(made):
            typer.echo(sentence)
        typer.echo("\n" + "   ".join(map(str, written)))
    return passed(made)


def audited_in(
    scenario: Scenario, source: Path, folder: Path, *, canaries: int, adapters: int
) -> tuple[AuditResult, list[Path]]:
    """Audit a scenario and write audit.json into a folder, and into a finished run there; names what was written.

    Raises:
        SettingsError: the folder holds a run of another study.
    """
    run = _finished(scenario, folder)
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("auditing", total=attacks(adapters))
        made = audit_scenario(
            scenario,
            prepare(scenario, source, Path(scratch) / "prepared"),
            Path(scratch),
            canaries=canaries,
            adapters=adapters,
            done=lambda: bars.advance(task),
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_audit(folder / "audit.json", made)
    written = [folder / "audit.json"]
    if run is not None:
        written += _added(scenario, run.model_copy(update={"audit": made}), folder)
    return made, written


def passed(audited: AuditResult) -> bool:
    """Return false if a promise is refuted or a fault escaped that had to be caught."""
    return audited.canaries is None or audited.canaries.passed


def _finished(scenario: Scenario, folder: Path) -> Result | None:
    if not (folder / "result.json").exists():
        return None
    result, wanted = read_result(folder / "result.json"), scenario.as_study().sha256
    if result.study_sha256 != wanted:
        raise SettingsError(
            f"Expected a run of study {wanted[:12]} in {folder}, got one of {result.study_sha256[:12]}.",
            hint="Repeat the --set options that the run was started with, or choose another --out.",
        )
    return result


def _added(scenario: Scenario, result: Result, folder: Path) -> list[Path]:
    write_result(folder / "result.json", result)
    write_report(result, folder / "report.html")
    if (folder / "adapter").exists():
        write_card(folder / "adapter", scenario, result)
    return [folder / "result.json", folder / "report.html"]
