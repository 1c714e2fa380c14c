"""What doctor says of data, budget and memory, and that no trouble of a library is a traceback."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from client.operator.doctor import examine
from client.operator.finding import OUT_OF_MEMORY, tried
from client.operator.record_checks import MOST_OFF, order_of
from client.operator.trial import Memory, fit, memory_of
from client.operator.withdrawal import withdraw
from client.vault.review.node_files import open_node
from client.vault.review.review import StudyReview
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


@pytest.mark.parametrize(("gib", "ok"), [(8.0, True), (1e-5, False)])
def test_what_a_study_needs_is_compared_with_the_memory_there_is_before_anything_is_loaded(
    node: UnjoinedNode, monkeypatch: pytest.MonkeyPatch, gib: float, ok: bool
) -> None:
    memory = Memory("GPU memory", 0, 0, int(gib * 2**30))
    monkeypatch.setattr("client.operator.trial.memory_of", lambda _device: memory)
    monkeypatch.setattr("client.operator.trial.trial", lambda *_: "exact")
    found = node.examined()["study: room"]
    assert found.ok == ok and "the weights need about 0.0 GiB and 512 tokens at once 0.0" in found.saw
    assert f"there are {gib:.1f} GiB of GPU memory" in found.saw and (ok or "model.base_weights" in found.todo)


def test_a_study_that_shares_its_noise_is_tried_with_all_of_it(
    node: UnjoinedNode, make_study: Callable[..., Study]
) -> None:
    model = node.study.model.model_dump()
    shared = {"quorum": 3, "secure_sum": "shared", "typical_size": 60}
    node.study = make_study(model=model, federation=shared, training={"local_steps": 1}, privacy={"epsilon": 2.99})
    found = node.examined()["study: gradient probe, speed, memory"]
    assert found.ok and "exact; " in found.saw, found


def test_a_trial_whose_noise_moves_nothing_is_no_success(node: UnjoinedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.vault.training.trainer.PrivateTrainer._step", lambda *_: None)
    found = node.examined()["study: gradient probe, speed, memory"]
    assert not found.ok and "nothing moved" in found.saw, found


@pytest.mark.gpu
def test_a_trial_on_a_gpu_says_what_it_took_of_it(node: UnjoinedNode) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    node.config.write_text(node.config.read_text() + '[performance]\ndevice = "cuda"\n')
    found = node.examined()["study: gradient probe, speed, memory"]
    assert found.ok and "on cuda" in found.saw and "GiB of GPU memory" in found.saw, found


DECLARED = "epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\n"
SPOILED: dict[str, tuple[str, str, Callable[[list[str]], list[str]], str, str]] = {
    "too small": ("declared_size = 60", "declared_size = 6", list, "declared size", "adds 10 times the noise"),
    "too large": ("declared_size = 60", "declared_size = 600", list, "declared size", "count 10 times less"),
    "no protection": ("epsilon = 3.0", "epsilon = 30.0", list, "limit", "10,686,474,581,524, times as likely"),
    "blank labels": (
        "",
        "",
        lambda rows: [f"word{i}," for i in range(20)] + rows[20:],
        "labels",
        "20 rows teach",
    ),
    "copies": ("", "", lambda rows: rows[:30] * 2, "copies", "30 records are trained on, not 60"),
    "few held out": ("", "", list, "held-out records", "by 17 points"),
    "none held out": ("delta", "holdout = 0.0\ndelta", list, "held-out records", "nothing here tells"),
    "no name": ("delta", 'labels = { "no" = "calm" }\ndelta', list, "labels", "30 rows teach nothing"),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_what_would_spoil_a_study_is_a_warning_with_its_consequence(node: UnjoinedNode, spoiled: str) -> None:
    old, new, change, check, consequence = SPOILED[spoiled]
    config, (header, *rows) = node.config.read_text(), node.data.read_text().splitlines()
    node.config.write_text(config.replace(DECLARED, DECLARED.replace(old, new), 1))
    node.data.write_text("\n".join([header, *change(rows)]) + "\n")
    found = {finding.check: finding for finding in examine(node.config)}[f"ward: {check}"]
    assert found.state == "warn" and found.ok and consequence in found.consequence and found.todo, found
    assert found.in_words.startswith(f"warn   ward: {check}: ") and "\n       so: " in found.in_words


def test_labels_that_all_are_blank_are_a_failure(node: UnjoinedNode) -> None:
    node.data.write_text("text,label\n" + "".join(f"word{i},\n" for i in range(60)))
    found = {finding.check: finding for finding in examine(node.config)}["ward: labels"]
    assert found.state == "FAILED" and "spend budget and learn nothing" in found.consequence


def test_a_well_declared_dataset_has_no_warning(node: UnjoinedNode) -> None:
    node.data.write_text("text,label\n" + "".join(f"word{i},{'yes' if i % 2 else 'no'}\n" for i in range(600)))
    node.config.write_text(node.config.read_text().replace("declared_size = 60", "declared_size = 600"))
    assert {f.state for f in examine(node.config) if f.check.startswith("ward")} == {"ok"}


def test_notes_of_the_reader_are_printed(node: UnjoinedNode) -> None:
    node.data.write_text(node.data.read_text().replace(",", ";"))
    data = {finding.check: finding for finding in examine(node.config)}["ward: data"]
    assert data.state == "ok" and "separated by ';'" in data.in_words
    rows = (f"word{i},{'yes' if i % 2 else 'no'}" for i in range(60))
    node.data.write_text("text,label\n" + "\n".join(rows) + "\n" + "long " * 400 + ",no\n")
    assert "are cut at their ends" in node.examined()["study: labels"].in_words


def test_a_node_trains_on_labels_by_the_names_that_its_operator_declares(node: UnjoinedNode) -> None:
    node.data.write_text("text,label\n" + "".join(f"word{i},{'maybe' if i == 9 else i % 2}\n" for i in range(60)))
    config = node.config.read_text()
    node.config.write_text(config.replace("epsilon = 3.0", 'epsilon = 3.0\nlabels = { "1" = "yes", "0" = "no" }', 1))
    opened = open_node(node.config)
    facts = StudyReview(opened).review(node.study, opened.dataset("ward")).snapshot.facts
    assert sum(facts.labels.values()) == facts.train - facts.unusable > 40 and min(facts.labels.values()) > 20
    assert facts.problems == ["row 10: its label 'maybe' is none of the study's"]
    assert "`labels` has no entry for maybe 1" in node.examined()["ward: labels"].saw


@pytest.mark.parametrize(
    ("count", "figure"), [(1, 1), (3, 3), (4, 5), (54, 50), (99, 100), (310, 300), (740, 1000), (8549, 10_000)]
)
def test_the_size_that_is_suggested_is_a_figure_of_that_order_and_no_count(count: int, figure: int) -> None:
    assert order_of(count) == figure
    assert all(max(n / order_of(n), order_of(n) / n) < MOST_OFF for n in range(1, 12_000)), "what follows it is quiet"
