"""What doctor says of data, budget and memory, and that no trouble of a library is a traceback."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from client.operator.doctor import examine
from client.operator.finding import OUT_OF_MEMORY, Finding, tried
from client.operator.trial import Memory, fit, memory_of
from client.operator.withdrawal import withdraw
from client.vault.review.node_files import open_node
from shared.base_models.locate import find
from shared.errors import RunError
from shared.study.declaration import Study
from shared.study.sections import Model
from tests.support.operators import approve_study
from tests.support.paths import ROOT

Studies = Callable[..., Study]


class Node:
    """A node with one dataset, which has not joined."""

    def __init__(self, folder: Path, tiny_bert: Path, make_study: Studies) -> None:
        model = {"source": str(tiny_bert), "fingerprint": find(Model(source=str(tiny_bert))).fingerprint}
        self.config, self.data = folder / "node.toml", folder / "ward.csv"
        self.study = make_study(model=model, federation={"quorum": 3}, privacy={"epsilon": 2.99})
        self.label("yes")
        dataset = f'epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{model["fingerprint"]}"]\n'
        sections = [f'[datasets.{name}]\nsource = "{name}.csv"\n{dataset}' for name in ("ward", "renamed")]
        self.config.write_text(f'[node]\nmodels = "{tiny_bert.parent}"\n' + "".join(sections))
        (folder / "renamed.csv").write_text("text,label\nGOOD  word7,no\nanother,yes\n")

    def label(self, label: str) -> None:
        rows = "".join(f"good word{i},{label if i % 2 else 'no'}\n" for i in range(60))
        self.data.write_text("text,label\n" + rows)

    def approve(self, run: str = "r-1", dataset: str = "ward") -> None:
        approve_study(self.config, self.study, run, dataset)

    def examined(self) -> dict[str, Finding]:
        return {found.check: found for found in examine(self.config, self.study, "ward")}


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> Node:
    return Node(tmp_path, tiny_bert, make_study)


def test_labels_are_held_against_the_study(node: Node) -> None:
    good = node.examined()["study: labels"]
    assert good.ok and "(no " in good.saw and "For your eyes only" in good.saw
    node.label("Yes")
    bad = node.examined()["study: labels"]
    assert not bad.ok and "yes 0" in bad.saw and "spelling and case" in bad.todo


def test_a_budget_that_leaves_nothing_is_a_finding(node: Node) -> None:
    assert node.examined()["ward: budget"].ok
    node.approve()
    spent = node.examined()["ward: budget"]
    assert not spent.ok and "no study fits any more" in spent.saw and "Reject" in spent.todo
    withdraw(open_node(node.config), "ward")
    assert "withdrawn" in node.examined()["ward: budget"].saw


@pytest.mark.parametrize(
    ("trouble", "saw", "todo"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. 2 GiB.\nlong advice"),
            "out of memory",
            OUT_OF_MEMORY,
        ),
        (MemoryError(), "out of memory", OUT_OF_MEMORY),
        (RuntimeError("no kernel image is available"), "no kernel image", "Mend what the message names."),
        (PermissionError("ward.csv"), "ward.csv", "Mend what the message names."),
    ],
)
def test_a_trouble_of_a_library_is_a_finding_and_no_traceback(trouble: Exception, saw: str, todo: str) -> None:
    def look() -> str:
        raise trouble

    found = tried("study", look)
    assert not found.ok and saw in found.saw and "\n" not in found.saw and found.todo == todo


def test_memory_is_the_one_that_the_device_trains_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2 * 2**30)
    assert fit(memory_of("cuda")) == "2.0 GiB of GPU memory, 7.0 of 8.0 GiB free"
    here = memory_of("cpu")
    assert 2**20 < here.peak_bytes < here.total_bytes and 0 < here.free_bytes < here.total_bytes
    with pytest.raises(RunError, match="fitted this once"):
        fit(Memory("GPU memory", 8 * 2**30, 2**20, 8 * 2**30))


def test_a_model_that_does_not_fit_is_said_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("client.vault.training.trainer.PrivateTrainer.train_round", full)
    found = node.examined()["study: gradient probe, speed, memory"]
    assert not found.ok and found.todo == OUT_OF_MEMORY


@pytest.mark.gpu
def test_a_trial_on_a_gpu_says_what_it_took_of_it(node: Node) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    node.config.write_text(node.config.read_text() + '[performance]\ndevice = "cuda"\n')
    found = node.examined()["study: gradient probe, speed, memory"]
    assert found.ok and "on cuda" in found.saw and "GiB of GPU memory" in found.saw, found


@pytest.mark.guarantee("after a withdrawal no snapshot and no cached activation of its records is left.")
def test_withdrawing_deletes_copies_and_lists_what_descends(node: Node) -> None:
    node.approve()
    files = open_node(node.config)
    with files.open_ledger() as ledger:
        ledger.reserve("r-1", 1)
        ledger.reserve("r-1", 2)
    files.folders.cache.mkdir()
    (files.folders.cache / "abc-def.f32").write_bytes(b"activations")
    (found,) = withdraw(files, "ward")
    assert (found.run, found.study, found.dataset, found.rounds_paid) == ("r-1", "test", "ward", 2)
    assert found.model == node.study.model.source
    assert not files.folders.cache.exists() and list(files.folders.approved.iterdir()) == []


def test_a_dataset_that_was_never_approved_can_be_withdrawn_and_takes_its_other_names_with_it(node: Node) -> None:
    assert withdraw(open_node(node.config), "ward") == []
    with pytest.raises(Exception, match="withdrawn"):
        node.approve(dataset="renamed")


def test_nothing_is_downloaded_from_the_first_import_on(node: Node) -> None:
    code = """
import sys
from typer.testing import CliRunner
import client.cli
assert "huggingface_hub" not in sys.modules
CliRunner().invoke(client.cli.cli, ["vault", "--config", "absent.toml"])
import huggingface_hub.constants, transformers.utils.hub
print(huggingface_hub.constants.HF_HUB_OFFLINE, transformers.utils.hub.is_offline_mode())
"""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["True", "True"]


def test_leaving_takes_the_messages_that_wait_along(tmp_path: Path) -> None:
    from client.link.membership import leave

    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.message").write_bytes(b"a task of a federation that was left")
    for name in ("membership.json", "node.key"):
        (tmp_path / name).write_text(json.dumps({}))
    leave(tmp_path)
    assert list(tmp_path.iterdir()) == []
