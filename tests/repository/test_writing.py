"""Files are written by the functions of `shared.files`, which know modes, crashes and folders; nowhere else."""

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PRIMITIVES = {"fsync", "fchmod", "chmod", "umask", "link", "mkstemp", "mkdtemp", "touch"}
"""Names of functions that settle a mode or make something durable."""
ALLOWED = {
    "shared/files.py": "the place for it",
    "shared/adapted_model/activation_file.py": "a cache that is read and written in pieces, and may be lost",
    "shared/adapted_model/frozen_activations.py": "the same cache, renamed when it is complete",
    "client/vault/service/grpc_service.py": "modes of a socket and its folder",
    "server/gateway/operators/page_socket.py": "the mode of a socket, and its folder's descriptor",
    "shared/processes/log_files.py": "logs, which may be lost",
    "server/wake_pipe.py": "a pipe, which holds nothing that a crash could lose",
    "server/flower/superlink.py": "Flower's own process writes its database",
}
LIBRARIES = {
    "client/vault/ledger/storage.py": "SQLite's file must be private before SQLite opens it",
    "client/vault/ledger/record_index.py": "the same",
}


def test_only_one_place_settles_modes_and_makes_files_durable() -> None:
    product = [path for folder in ("client", "server", "shared") for path in (ROOT / folder).rglob("*.py")]
    used = {str(path.relative_to(ROOT)): found for path in product if (found := _primitives(path))}
    allowed = {**ALLOWED, **LIBRARIES}
    elsewhere = {name: found for name, found in used.items() if not any(name.startswith(known) for known in allowed)}
    assert elsewhere == {}, "use write_atomically, write_private, private_file or complete_folder"
    assert [known for known in allowed if not any(name.startswith(known) for name in used)] == [], "allowed for nothing"


@pytest.mark.parametrize(
    "line",
    [
        "os.fsync(1)",
        "path.chmod(0o600)",
        "os.replace(a, b)",
        "path.replace(other)",
        "path.rename(other)",
        "os.open(p, 1)",
    ],
)
def test_a_primitive_is_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(line)
    assert _primitives(tmp_path / "module.py")


@pytest.mark.parametrize(
    "line", ["text.replace('a', 'b')", "replace(task, round=1)", "date.replace(day=1)", "path.open()"]
)
def test_what_only_looks_like_one_is_not(line: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(line)
    assert not _primitives(tmp_path / "module.py")


def _primitives(path: Path) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if isinstance(call.func, ast.Attribute) and _settles(call, call.func)]


def _settles(call: ast.Call, function: ast.Attribute) -> bool:
    of_os = isinstance(function.value, ast.Name) and function.value.id == "os"
    if function.attr == "open":
        return of_os
    if function.attr in ("replace", "rename"):  # a string's takes two texts, a date's only keywords
        return of_os or (len(call.args) == 1 and not call.keywords)
    return function.attr in PRIMITIVES
