"""Looking at a node before it is needed: what would go wrong, and which base models are here."""

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, chosen_dataset, declared_study, node_folders, open_node
from shared.printable import printable

CLEAR = "\r\x1b[K"


def doctor(
    study: Annotated[str | None, typer.Argument(help="Also try this study: a file, or a run on offer.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="The dataset to try it on.")] = None,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Find now what would go wrong later, or spoil a study. Every warning and failure says what follows and what to do.

    Nothing leaves this machine.
    """
    from client.operator.doctor import examine

    declared, chosen = None, None
    if study is not None:
        node = open_node(config)
        declared, chosen = declared_study(node, study)[0], chosen_dataset(node, dataset).name
    findings, begins = [], _on_terminal if sys.stdout.isatty() and not as_json else _beside
    for finding in examine(config, declared, chosen, begins=begins):
        findings.append(asdict(finding) | {"state": finding.state})
        if not as_json:
            typer.echo(f"{CLEAR if sys.stdout.isatty() else ''}{printable(finding.in_words)}")
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


def _on_terminal(check: str) -> None:
    """Say which check is being made, on a line that its result writes over."""
    typer.echo(f"{CLEAR}...    {check}", nl=False)


def _beside(check: str) -> None:
    """Say which check is being made, beside the results."""
    typer.echo(f"...    {check}", err=True)


def models(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """List the base models that are here, as lines of node.toml: a dataset's `models` takes these names.

    A name is pinned to the fingerprint beside it: another model in the same folder is not what was allowed.

    They are looked for in `models` beside node.toml, a folder each (config.json, tokenizer, *.safetensors), and among
    installed packages. Nothing is ever downloaded for a study. A folder comes twice where a study with
    `model.fingerprint_version = 2` knows it by another fingerprint.
    """
    from shared.base_models.locate import on_this_machine

    by_folder = dict[str, dict[int, str]]()
    for one in on_this_machine(node_folders(config).models):
        by_folder.setdefault(str(one.directory), {})[one.fingerprint_version] = one.fingerprint
    if as_json:
        rows = [
            {"fingerprint": known[1], "folder": folder, "fingerprint_version_2": known[2]}
            for folder, known in by_folder.items()
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    # no table: a terminal would break what is to be copied
    names = _names(by_folder)
    lines = [f'{names[folder]} = "{known[1]}"  # {folder}' for folder, known in by_folder.items()]
    lines += [
        f'{names[folder]}-2 = "{known[2]}"  # {folder}, in studies with model.fingerprint_version = 2'
        for folder, known in by_folder.items()
        if known[2] != known[1]
    ]
    typer.echo("\n".join(["[models]", *sorted(lines)]) if lines else "none")


def _names(folders: Iterable[str]) -> dict[str, str]:
    """Return a name for the model in each folder, no two alike, as TOML writes keys."""
    from shared.base_models.bundled import bundled_name

    names: dict[str, str] = {}
    for folder in folders:
        name = re.sub(r"[^\w-]", "-", bundled_name(Path(folder)) or Path(folder).name, flags=re.ASCII)
        names[folder] = f"{name}-{len(names)}" if name in names.values() else name
    return names
