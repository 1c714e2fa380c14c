"""Documents name only what is there, and keep to what they are for."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from tests.support.documents import DOCUMENTS, anchors, blocks, commands, links, prose, text_of
from tests.support.paths import ROOT

PRODUCT = ("client", "server", "shared", "simulations")
ONE_FILE_PER_THING = {
    "shared/tasks",
    *(f"simulations/datasets/{kind}" for kind in ("text", "image", "audio", "models")),
}
"""Rooms whose files are a task kind or a data set each, and say so."""
TWO_SCREENS = 100
GENERATED = {"simulations/RESULT.md": "one table per part of a result, in the order of the code"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}#{anchor}"
        for path, anchor in links(document)
        if not path.exists() or (anchor and anchor not in anchors(str(path.relative_to(ROOT))))
    ]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_exists(document: str) -> None:
    paths = re.findall(r"`((?:shared|client|server|simulations|tests|docker)/[\w./-]*)`", prose(document))
    made = "".join(blocks(document, "bash"))
    assert [path for path in paths if not (ROOT / path).exists() and str(Path(path).parent) not in made] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    typed = [
        line for language in ("console", "bash") for block in blocks(document, language) for line in block.split("\n")
    ]
    named = re.findall(r"`make ([a-z0-9-]+)", prose(document))
    assert {*named, *(line.split()[1] for line in typed if line.startswith("make "))} <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_one(document: str) -> None:
    named = re.findall(
        r"`((?:fedvault-(?:server|node|sim)|python -m simulations\.benchmarks)(?:\s[^`]*)?)`", prose(document)
    )
    typed = [line for line in commands(document) if line.startswith(".venv/bin/fedvault-")]
    for line in [*named, *typed]:
        program, *arguments = shlex.split(" ".join(line.split()))
        parse(Path(program).name, arguments)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_long_page_has_a_table_of_contents(document: str) -> None:
    text = text_of(document)
    if len(text.splitlines()) <= TWO_SCREENS or document in GENERATED:
        return
    chapters = re.findall(r"^## (.*)$", prose(document), re.M)
    listed = re.findall(r"^\* \[(.*?)\]\(#", text.split("\n## ")[0], re.M)
    assert listed == chapters


def test_every_room_names_its_files_in_its_first_paragraphs() -> None:
    wrong = {}
    for room in (path.parent for part in PRODUCT for path in (ROOT / part).rglob("__init__.py")):
        name = str(room.relative_to(ROOT))
        if room.name.startswith("_"):
            continue  # generated
        inner = {path.stem for path in room.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        inner = {file for file in inner if not file.startswith("_")}
        named = set(re.findall(r"`([a-z]\w*)`", ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""))
        missing = set() if name in ONE_FILE_PER_THING else inner - named
        if missing or named - inner:
            wrong[name] = (sorted(missing), sorted(named - inner))
    assert wrong == {}, "(not named, not there)"


def test_every_folder_of_the_readmes_table_exists() -> None:
    rows = [line.split("|") for line in text_of("README.md").split("## Where things are")[1].splitlines()]
    for folders, names in [(row[1], row[2]) for row in rows if len(row) == 4 and "`" in row[1]]:
        (first, *others) = re.findall(r"`([\w/]+)/`", folders)
        parts = [ROOT / first / name for name in re.findall(r"`([\w./]+)`", names)]
        assert [path for path in [*parts, *(ROOT / other for other in others)] if not path.exists()] == []


def test_the_picture_names_folders_that_exist() -> None:
    picture = (ROOT / "shared" / "data-flow.svg").read_text()
    rooms = re.findall(r'class="room"[^>]*>([^<]+)<', picture)
    assert len(rooms) == len(set(rooms)) == 10
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []
    assert "prefers-color-scheme: dark" in picture


def test_the_guides_scenario_is_a_valid_one(tmp_path: Path) -> None:
    from simulations.experiment.scenario import load

    (scenario,) = blocks("simulations/README.md", "toml")
    (tmp_path / "my-study.toml").write_text(scenario)
    assert load(tmp_path / "my-study.toml").as_study().task.labels == ("no", "yes")


def test_the_snippets_shown_are_the_ones_that_are_run() -> None:
    text = text_of("server/export/README.md")
    shown = re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```\n<!-- /snippet -->", text, re.S)
    assert [name for name, _ in shown] == ["generate", "classify", "onnx_runtime"]
    for name, code in shown:
        assert code == (ROOT / "tests" / "snippets" / f"{name}.py").read_text()


def test_the_table_of_families_names_every_task_kind_and_scenarios_that_ship() -> None:
    from shared.study.tasks import KINDS
    from simulations.experiment.catalogue import catalogue

    rows = table("shared/tasks/README.md", "families")
    assert {row[1].strip(" `") for row in rows} == KINDS.keys()
    ships = {Path(entry.file).stem: entry.task for entry in catalogue()}
    for row in rows:
        for name in re.findall(r"`([\w-]+)`", row[5]):
            assert ships[name] == row[1].strip(" `")
    measured = {row[1].strip(" `¹²") for row in table("shared/tasks/README.md", "scenarios")}
    assert measured == set(ships) - {"health-tweets"}, "the demo has a page of its own"


def table(document: str, name: str) -> list[list[str]]:
    """The rows of a marked table whose first cell is code."""
    (lines,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text_of(document), re.S)
    return [line.split("|") for line in lines.splitlines() if line.startswith("| `")]


def parse(program: str, arguments: list[str]) -> None:
    """Read a command line as the program would; a name alone names the command.

    Raises:
        click.UsageError: there is no such command, option or value.
    """
    if program == "python":
        from simulations.benchmarks.__main__ import BENCHMARKS

        module, *names = arguments[1:]
        if module == "simulations.benchmarks":
            assert set(names) <= {*BENCHMARKS, "NAME"}
        return
    command = application(program)
    with click.Context(command, info_name=program) as context:
        while arguments and isinstance(command, click.Group):
            name, *arguments = arguments
            found = command.get_command(context, name)
            assert found is not None, f"{program} {name}"
            command = found
        if arguments:
            command.make_context(program, list(arguments))


def application(program: str) -> Any:
    if program == "fedvault-server":
        from server.cli.app import cli
    elif program == "fedvault-node":
        from client.cli import cli
    else:
        from simulations.cli import cli
    return typer.main.get_command(cli)


def test_each_sentence_on_members_and_strangers_names_a_test_that_is_there() -> None:
    chapter = (ROOT / "SECURITY.md").read_text().split("## What protects the server")[1].split("\n## ")[0]
    promises = chapter.split("\n* ")[1:]
    named = [re.findall(r"`(tests/[a-z_/]+\.py)`", promise) for promise in promises]
    assert [promise[:60] for promise, tests in zip(promises, named, strict=True) if not tests] == []
    assert [test for tests in named for test in tests if not (ROOT / test).exists()] == []
