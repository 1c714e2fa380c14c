"""Write a board that can be mailed: one file, or a folder with every run's report in it. Neither runs a script."""

from collections.abc import Sequence
from pathlib import Path

from shared.errors import SettingsError
from shared.evidence.signed_report import SignedReport, written
from shared.files import write_atomically
from shared.web.rendering import Pages, Site
from simulations.board.page import Board, board_of
from simulations.board.runs import BoardRun, ReadRuns
from simulations.results.report import report_of

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "index.html"
NOTE = "Simulations alone; this page is open on this machine alone."


def board_pages(instance: str) -> Pages:
    """Return the templates of a board."""
    return Pages(TEMPLATES, Site("simulations", instance, (("/", "Board"),), NOTE))


def export_board(read: ReadRuns, runs: Sequence[BoardRun], out: Path) -> Path:
    """Write a board of some runs as one file, if its name ends in .html, or else as a new folder.

    Raises:
        SettingsError: no run is left to show, or what would be written is there.
    """
    if not runs:
        raise SettingsError("Expected runs to show, got none that --where leaves.")
    if out.suffix == ".html":
        write_atomically(out, _page(board_of(runs, read.unreadable, lambda _run: None)))
        return out
    if out.exists():
        raise SettingsError(f"Expected a new folder, {out} is there.", hint="Or name a file: --export board.html")
    names = {run.name: f"report-{number}.html" for number, run in enumerate(runs, 1)}
    out.mkdir(parents=True)
    for run in runs:
        write_atomically(out / names[run.name], report_page(run))
    write_atomically(out / PAGE, _page(board_of(runs, read.unreadable, lambda run: names[run.name])))
    return out / PAGE


def report_page(run: BoardRun) -> bytes:
    """Return a run's report as its page, made anew from its figures."""
    return written(SignedReport(report_of([run.result])), "html")


def _page(board: Board) -> bytes:
    return board_pages("board").as_file("export.html", board=board).encode()
