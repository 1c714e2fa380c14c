"""Live progress of a run in a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from server.rounds.round import RoundRecord
from simulations.results.metric_names import shown, words
from simulations.results.result import Quality


class TerminalProgress:
    """One bar per arm, one line per round of the study itself."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
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
        """A phase without rounds begins."""
        self._finish_phase()
        self._task, self._done = self._bars.add_task(name, total=steps, note=""), float(steps)

    def step(self) -> None:
        """Move within a phase."""
        if self._task is not None:
            self._bars.advance(self._task)

    def arm(self, title: str, rounds: int, done: int) -> None:
        """An arm begins."""
        self._finish_phase()
        self._title = title
        self._done = float(done)
        self._task = self._bars.add_task(escape(title), total=rounds, completed=int(self._done), note="")

    def asks(self, number: int, nodes: Sequence[int]) -> None:
        """Nothing."""

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Move within a round."""
        del node, verdict
        if self._task is not None:
            self._bars.update(self._task, completed=number - 1 + answered / asked)

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Say what a round gave."""
        if record is None or self._task is None:
            return
        self._done = float(record.round)
        quality = Quality.model_validate(evaluation) if evaluation else None
        note = f"{words(quality.metric)} {shown(quality.value)}" if quality else ""
        self._bars.update(self._task, completed=record.round, note=escape(note))
        missing = [{"node": node} for node in record.missing]
        for verdict, entries in (("rejected", record.rejected), ("refused", record.refused), ("missing", missing)):
            for entry in entries:
                self._bars.console.print(f"round {record.round}: {verdict} {entry}", style="yellow", markup=False)
        if quality:
            worst = quality.worst_site
            line = f"{self._title}: round {record.round:>3}  {note}  worst {worst.site} {shown(worst.value)}"
            self._bars.console.print(line, style="dim", highlight=False, markup=False)

    def _finish_phase(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._done)
            self._bars.stop_task(self._task)


class SilentProgress:
    """Says nothing: for --json and tests."""

    def __enter__(self) -> "SilentProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def phase(self, name: str, steps: int = 1) -> None:
        """Nothing."""

    def step(self) -> None:
        """Nothing."""

    def arm(self, title: str, rounds: int, done: int) -> None:
        """Nothing."""

    def asks(self, number: int, nodes: Sequence[int]) -> None:
        """Nothing."""

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Nothing."""

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Nothing."""
