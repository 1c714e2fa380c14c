"""Files have one idea, rooms few files, documents one reader; every room says what belongs in it."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PRODUCT = ("client", "server", "shared", "simulations")
MOST_LINES, MOST_FILES, MOST_FUNCTION_LINES = 400, 14, 60
ONE_FILE_PER_KIND = {"shared/tasks"}
"""Rooms of one file per kind of thing, which may be larger."""
FLOWERS_OWN = "simulations/benchmarks/stock/flower"
"""A project in Flower's form, which is no package."""
MOST_BYTES = {"README.md": 7000, "CONTRIBUTING.md": 6000}
GIT = shutil.which("git")
TOP = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "README.md", "SECURITY.md"),
    *("client", "docker", "pyproject.toml", "server", "shared", "simulations", "tests"),
}


def _files() -> list[Path]:
    return [path for part in PRODUCT for path in sorted((ROOT / part).rglob("*.py")) if "_generated" not in path.parts]


@pytest.mark.skipif(not GIT or not (ROOT / ".git").exists(), reason="needs a clone and git, as CI has")
def test_only_what_belongs_at_the_top_is_committed_there() -> None:
    """What a command or a test leaves in the folder where it was called is not part of the project."""
    listed = subprocess.run([str(GIT), "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name.partition("/")[0] for name in listed.splitlines()} - TOP == set()


def test_no_file_is_longer_than_one_idea() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _files()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno > MOST_FUNCTION_LINES
    ]
    assert long == []


def test_no_room_holds_more_than_a_stranger_can_take_in() -> None:
    rooms: dict[str, int] = {}
    for path in _files():
        if path.name != "__init__.py":
            room = str(path.parent.relative_to(ROOT))
            rooms[room] = rooms.get(room, 0) + 1
    assert {room: count for room, count in rooms.items() if count > MOST_FILES and room not in ONE_FILE_PER_KIND} == {}


def test_every_room_says_what_belongs_in_it() -> None:
    rooms = {path.parent for path in _files()} - {ROOT / FLOWERS_OWN}
    silent = [
        str(room.relative_to(ROOT))
        for room in sorted(rooms)
        if not (room / "__init__.py").exists() or not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    ]
    assert silent == []


@pytest.mark.parametrize("name", MOST_BYTES)
def test_a_document_is_short_enough_for_its_reader(name: str) -> None:
    assert (ROOT / name).stat().st_size <= MOST_BYTES[name]
