"""Serve a board on this machine: the same page, with filters, and a report behind each run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.pages.html_page import POLICY
from shared.web.rendering import Pages
from simulations.board.export import report_page
from simulations.board.page import board_of
from simulations.board.runs import BoardRun, ReadRuns, differing, matching, read_runs

MOST_FILTERS, MOST_VALUES = 6, 24
"""Settings that can be chosen from, and values of each: more is no choice any more."""


class BoardSite:
    """The page of some result folders, read again whenever it is loaded.

    Args:
        folders: that hold results.
        wanted: what the runs must have.
        pages: templates.
    """

    def __init__(self, folders: Sequence[Path], wanted: dict[str, Any], pages: Pages) -> None:
        self._folders, self._wanted, self._pages = folders, wanted, pages

    def routes(self) -> list[Route]:
        """Return every address of the page."""
        return [Route("/", self.board), Route("/report", self.report)]

    def board(self, request: Request) -> Response:
        """Show the runs that the filter leaves."""
        read, runs = self._read()
        values = {key: [str(value) for value in each] for key, each in differing(runs).items()}
        choices = {key: each for key, each in values.items() if 1 < len(each) <= MOST_VALUES}
        choices = dict(list(choices.items())[:MOST_FILTERS])
        chosen = {key: request.query_params[key] for key in choices if request.query_params.get(key)}
        left = [run for run in runs if all(str(run.settings.get(key)) == value for key, value in chosen.items())]
        board = board_of(left, read.unreadable, _report) if left else None
        return self._pages.response(request, "board.html", board=board, choices=choices, chosen=chosen)

    def report(self, request: Request) -> Response:
        """Show one run's report, whose policy lets it hold its style and nothing else."""
        _read, runs = self._read()
        for run in runs:
            if run.name == request.query_params.get("run"):
                return Response(report_page(run), media_type="text/html", headers={"Content-Security-Policy": POLICY})
        return PlainTextResponse("There is no such run.\n", 404)

    def _read(self) -> tuple[ReadRuns, list[BoardRun]]:
        read = read_runs(self._folders)
        return read, matching(read.runs, self._wanted)


def _report(run: BoardRun) -> str:
    return f"/report?{urlencode({'run': run.name})}"
