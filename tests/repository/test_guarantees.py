"""Every `Guarantee:` in the code has a test that carries its words."""

import ast
import re
from pathlib import Path

from tests.support.paths import ROOT


def test_every_guarantee_has_a_test_that_carries_its_words() -> None:
    promised = {text for folder in ("client", "server", "shared") for text in _guarantees(ROOT / folder)}
    held = {text for path in (ROOT / "tests").rglob("test_*.py") for text in _marked(path)}
    assert promised - held == set()
    assert held - promised == set()


def _guarantees(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found |= set(re.findall(r"Guarantee: (.*?)(?=\n\n|Guarantee:|\Z)", ast.get_docstring(node) or "", re.S))
    return {" ".join(text.split()) for text in found}


def _marked(path: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "guarantee"
    }
