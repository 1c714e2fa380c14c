"""Progress of a run: live in a terminal, or silent."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from server.operator.reasons import in_words
from server.rounds.observer import Observer
from server.rounds.round import RoundRecord
from simulations.results.metric_names import shown, words
from simulations.results.result import Quality


class Progress(Observer, Protocol):
    """Receives how far a run is: an observer of every arm's rounds, and of what comes before and between them."""

    def phase(self, name: str, steps: int = 1) -> None:
        """Receive the start of a phase without rounds."""
        ...

    def step(self) -> None:
        """Receive the end of one of its steps."""
        ...

    def arm(self, title: str, rounds: int, done: int) -> None:
        """Receive the start of an arm, of which `done` rounds are there already."""
        ...


class TerminalProgress:
    """Shows one bar per arm, and one line per round of the study itself."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=14),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._title = ""
        self._done = 0.0

    def __enter__(self) -> "TerminalProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_phase()
        self._bars.stop()

    def phase(self, name: str, steps: int = 1) -> None:
        """Show a bar for a phase."""
        self._finish_phase()
        self._task, self._done = self._bars.add_task(name, total=steps, note=""), float(steps)

    def step(self) -> None:
        """Move the phase's bar."""
        if self._task is not None:
            self._bars.advance(self._task)

    def arm(self, title: str, rounds: int, done: int) -> None:
        """Show a bar for an arm."""
        self._finish_phase()
        self._title = title
        self._done = float(done)
        self._task = self._bars.add_task(escape(title), total=rounds, completed=int(self._done), note="")

    def asks(self, number: int, nodes: Sequence[int], *, again: Sequence[int] = (), ask: int = 1) -> None:
        """Show nothing."""

    def gone(self, number: int, node: int) -> None:
        """Show nothing."""

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Move the arm's bar within a round."""
        del node, verdict
        if self._task is not None:
            self._bars.update(self._task, completed=number - 1 + answered / asked)

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Print a round's quality, and whoever was rejected, refused or missing."""
        if record is None or self._task is None:
            return
        self._done = float(record.round)
        quality = Quality.model_validate(evaluation) if evaluation else None
        note = f"{words(quality.metric)} {shown(quality.value)}" if quality else ""
        self._bars.update(self._task, completed=record.round, note=escape(note))
        for sentence in _unused(record):
            self._bars.console.print(
                f"round {record.round}: {sentence}.", style="yellow", highlight=False, markup=False
            )
        if quality:
            worst = quality.worst_site
            line = f"{self._title}: round {record.round:>3}  {note}  worst {worst.site} {shown(worst.value)}"
            self._bars.console.print(line, style="dim", highlight=False, markup=False)

    def _finish_phase(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._done)
            self._bars.stop_task(self._task)


def _unused(record: RoundRecord) -> Iterator[str]:
    """Say of each node why its update was not used, or needs a look."""
    for entry in record.rejected:
        yield f"node {entry['node']} was rejected: {in_words(entry['reason'])}"
    for entry in record.refused:
        yield f"node {entry['node']} sent no update: {in_words(entry['status'])}"
    for node in record.missing:
        yield f"node {node} did not answer"
    for node in record.quiet:
        yield f"node {node} is in doubt: {in_words('quiet')}"


class SilentProgress:
    """Shows nothing: for --json and tests."""

    def __enter__(self) -> "SilentProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def phase(self, name: str, steps: int = 1) -> None:
        """Show nothing."""

    def step(self) -> None:
        """Show nothing."""

    def arm(self, title: str, rounds: int, done: int) -> None:
        """Show nothing."""

    def asks(self, number: int, nodes: Sequence[int], *, again: Sequence[int] = (), ask: int = 1) -> None:
        """Show nothing."""

    def gone(self, number: int, node: int) -> None:
        """Show nothing."""

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Show nothing."""

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Show nothing."""


def progress_for(console: Console, *, silent: bool) -> SilentProgress | TerminalProgress:
    """Return what shows progress on a console, or on none."""
    return SilentProgress() if silent else TerminalProgress(console)
