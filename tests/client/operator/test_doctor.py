"""What doctor says of data, budget and memory, and that no trouble of a library is a traceback."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from client.operator.finding import OUT_OF_MEMORY, tried
from client.operator.trial import Memory, fit, memory_of
from client.operator.withdrawal import withdraw
from client.vault.review.node_files import open_node
from shared.errors import RunError
from shared.study.declaration import Study
from tests.support.nodes import UnjoinedNode

Studies = Callable[..., Study]


def test_labels_are_held_against_the_study(node: UnjoinedNode) -> None:
    good = node.examined()["study: labels"]
    assert good.ok and "(no " in good.saw and "For your eyes only" in good.saw
    node.label("Yes")
    bad = node.examined()["study: labels"]
    assert not bad.ok and "yes 0" in bad.saw and "spelling and case" in bad.todo


def test_a_budget_that_leaves_nothing_is_a_finding(node: UnjoinedNode) -> None:
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


def test_a_model_that_does_not_fit_is_said_so(node: UnjoinedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("client.vault.training.trainer.PrivateTrainer.train_round", full)
    found = node.examined()["study: gradient probe, speed, memory"]
    assert not found.ok and found.todo == OUT_OF_MEMORY


@pytest.mark.gpu
def test_a_trial_on_a_gpu_says_what_it_took_of_it(node: UnjoinedNode) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    node.config.write_text(node.config.read_text() + '[performance]\ndevice = "cuda"\n')
    found = node.examined()["study: gradient probe, speed, memory"]
    assert found.ok and "on cuda" in found.saw and "GiB of GPU memory" in found.saw, found
