"""A node's folder, and the command run on it in this process."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.cli import main
from shared.base_models.locate import find
from shared.study.sections import Model

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedvault-node", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path) -> Callable[..., str]:
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    shutil.copytree(tiny_bert, tmp_path / "models" / "tiny")
    (tmp_path / "ward.csv").write_text("text,label\n" + "".join(f"good word{i},yes\n" for i in range(60)))
    (tmp_path / "renamed.csv").write_text("text,label\nGOOD  word7,no\nanother,yes\n")
    dataset = f'epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{fingerprint}"]\n'
    datasets = [f'[datasets.{name}]\nsource = "{name}.csv"\n{dataset}' for name in ("ward", "renamed")]
    (tmp_path / "node.toml").write_text("\n".join(datasets))

    def write(name: str = "study.toml", **changes: Any) -> str:
        values = {"epsilon": 2.0, "quorum": 3, "wire": "float32", "sizes": "", "whitening": "false"} | changes
        (tmp_path / name).write_text(f"""
[study]
name = "test"
[model]
source = "{tiny_bert}"
fingerprint = "{fingerprint}"
{values.get("base", "")}
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[privacy]
epsilon = {values["epsilon"]}
[training]
whitening = {values["whitening"]}
[federation]
quorum = {values["quorum"]}
wire = "{values["wire"]}"
{values["sizes"]}
""")
        return name

    return write
