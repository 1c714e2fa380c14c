"""Tries a study apart from the vault, in a process of its own: one that runs out of memory takes nothing with it."""

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.operator.doctor import TRIAL
from client.operator.finding import OUT_OF_MEMORY, Seen, tried
from client.operator.trial import trial
from client.operator_service.jobs import UNREADABLE, OnStage, in_words
from client.operator_service.studies import offered_run
from client.vault.review.node_files import NodeFiles, open_node
from client.vault.review.review import ReviewedStudy, StudyReview
from shared.errors import DataError, RunError, may_be_a_records_own

log = logging.getLogger(__name__)
MOST_S = 1800.0
LOOK_EVERY_S = 0.5
STEPS = 5


def try_apart(config: Path, run: str, dataset: str, on_stage: OnStage, stopping: Callable[[], bool]) -> dict[str, Any]:
    """Probe the model and train a few steps in a process of its own; return what was found. Nothing of it leaves.

    Args:
        config: the node's settings.
        run: of a study on offer.
        dataset: that it would train on.
        on_stage: is told what is being done.
        stopping: whether the vault ends; the trial then does as well.

    Raises:
        RunError: it took too long, or ended without a result.
    """
    answer: dict[str, Any] | None = None
    with subprocess.Popen(_command(config, run, dataset), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603 - our own
        try:
            for line in _lines(child, stopping):
                if "stage" in line:
                    on_stage(line["stage"], line["done"], STEPS)
                else:
                    answer = line
        finally:
            child.kill()
    if answer is None:
        raise RunError("Expected the trial to end, the system ended it.", hint=OUT_OF_MEMORY)
    return answer


def _lines(child: "subprocess.Popen[bytes]", stopping: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Yields what the process says, until it has ended."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    until, rest = time.monotonic() + MOST_S, b""
    while time.monotonic() < until:
        if stopping():
            raise RunError("Expected the vault to run on, it is stopped.", hint="Start the node, and try again.")
        if not select.select([child.stdout], [], [], LOOK_EVERY_S)[0]:
            continue
        piece = os.read(child.stdout.fileno(), 65_536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)
    raise RunError(
        f"Expected the trial to end within {MOST_S / 60:g} minutes, it did not.",
        hint="`fedvault-node doctor RUN` waits.",
    )


def _command(config: Path, run: str, dataset: str) -> list[str]:
    return [sys.executable, "-m", __name__, str(config), run, dataset]


def try_here(config: Path, run: str, dataset: str, on_stage: OnStage) -> dict[str, Any]:
    """Try a study in this process; returns the finding, or what went wrong without a word of a record."""
    try:
        node = open_node(config)
        review = StudyReview(node, on_stage)
        reviewed = review.review(offered_run(node, run).study, node.dataset(dataset))
        on_stage("Probing gradients and training a few steps, which are thrown away", STEPS - 1, STEPS)
        finding = tried(TRIAL, lambda: without_records(node, reviewed))
        return {"finding": asdict(finding) | {"state": finding.state, "notes": []}}
    except Exception as error:  # whoever asked waits for an answer: this process ends with it
        log.exception("The trial of %s failed.", run)
        return in_words(error)


def without_records(node: NodeFiles, reviewed: ReviewedStudy) -> str | Seen:
    try:
        return trial(node, reviewed)
    except Exception as error:  # of libraries, whose words may quote what they were given
        if not isinstance(error, DataError) and not may_be_a_records_own(error):
            raise
        log.exception("The trial failed for a reason that may quote a record.")
        raise RunError(UNREADABLE, hint="`fedvault-node doctor RUN` says what.") from None


def main() -> None:
    """Try the study that the command line names, and say how it goes as lines of JSON."""
    config, run, dataset = sys.argv[1:]
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no line of ours

    def say(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    def on_stage(stage: str, done: int = 0, _total: int = 0) -> None:
        say(stage=stage, done=done)

    threading.Thread(target=_end_with_the_vault, daemon=True).start()
    say(**try_here(Path(config), run, dataset, on_stage))


def _end_with_the_vault() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it ends when the vault does
    os._exit(1)


if __name__ == "__main__":
    main()
