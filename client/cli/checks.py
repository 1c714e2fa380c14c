"""Looking at a node before it is needed: what would go wrong, and which base models are here."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, chosen_dataset, declared_study, node_folders, open_node


def doctor(
    study: Annotated[str | None, typer.Argument(help="Also try this study: a file, or a run on offer.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="The dataset to try it on.")] = None,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Find now what would go wrong later. Every failing line says what to do; nothing leaves this machine."""
    from client.operator.doctor import examine

    declared, chosen = None, None
    if study is not None:
        node = open_node(config)
        declared, chosen = declared_study(node, study)[0], chosen_dataset(node, dataset).name
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


def models(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """List the base models that are here, with the fingerprints that a dataset's `models` takes.

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
    lines = [f"{known[1]}  {folder}" for folder, known in by_folder.items()]
    lines += [
        f"{known[2]}  {folder}  (model.fingerprint_version = 2)"
        for folder, known in by_folder.items()
        if known[2] != known[1]
    ]
    typer.echo("\n".join(sorted(lines, key=lambda line: line[64:])) or "none")
