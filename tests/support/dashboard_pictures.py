"""Draw the server's page and a board of runs for the guides: make pictures.

The server's page shows a run store that was written as the run engine writes it; the board shows results with made-up
figures. Neither trains anything, so that the pictures are drawn in seconds.
"""

import io
import tempfile
from pathlib import Path
from typing import NoReturn

from PIL import Image
from playwright.sync_api import Browser

from server.dashboard.site import server_pages
from shared.files import write_atomically
from shared.study.declaration import load_study_of
from simulations.board.export import export_board
from simulations.board.runs import read_runs
from tests.support.browser import Visitor, chromium
from tests.support.documents import blocks
from tests.support.paths import ROOT
from tests.support.results import result, write_run
from tests.support.server_page import ServerInPieces, under_way
from tests.support.web import open_site

COLOURS = 64
WIDE = {"width": 1100, "height": 860}


def draw(root: Path) -> None:
    """Write the pictures below a folder."""
    with chromium(_missing) as browser, tempfile.TemporaryDirectory() as folder:
        write_atomically(root / "server" / "dashboard.png", small(server_page(browser, Path(folder))))
        write_atomically(
            root / "simulations" / "board.png", small(board(browser, Path(folder), results(Path(folder) / "runs")))
        )


def server_page(browser: Browser, folder: Path) -> bytes:
    """Return the page of a server in the thirteenth of twenty rounds."""
    declared = blocks("server/README.md", "toml")[0]
    file = folder / "study.toml"
    file.write_text(
        declared.replace('name = "sentiment"', 'name = "letters by mood"').replace("rounds = 4", "rounds = 20")
    )
    study, server = load_study_of(file), ServerInPieces(folder / "federation")
    under_way(server, study, 12)
    next_study = study.model_copy(update={"study": study.study.model_copy(update={"name": "letters to read first"})})
    server.store.create_run(next_study)
    with open_site(server.site().routes(), server_pages("fl.example.org")) as site:
        visitor = Visitor(browser, site.base, viewport=WIDE)
        visitor.open(site.address)
        visitor.page.get_by_text("Round 13").wait_for()
        picture = visitor.page.screenshot()
        visitor.close()
    server.store.close()
    return picture


def results(folder: Path) -> Path:
    """Write results of three seeds under each of four epsilons; their figures are made up."""
    for epsilon, value in ((0.5, 0.66), (1.0, 0.74), (3.0, 0.82), (8.0, 0.85)):
        for seed, luck in ((1, -0.012), (2, 0.004), (3, 0.009)):
            one = result(value + luck / epsilon**0.5, epsilon=epsilon, seed=seed, without_privacy=0.872 + luck / 4)
            write_run(folder / f"epsilon-{epsilon:g}-seed-{seed}", one)
    return folder


def board(browser: Browser, folder: Path, runs: Path) -> bytes:
    """Return the first screen of a board of all runs below a folder."""
    read = read_runs([runs])
    page = export_board(read, read.runs, folder / "board.html")
    visitor = Visitor(browser, "file://", viewport=WIDE | {"height": 1000})
    visitor.open(str(page))
    picture = visitor.page.screenshot()
    visitor.close()
    return picture


def small(png: bytes) -> bytes:
    """Return a picture with few colours and few bytes."""
    drawn = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(drawn, "png", optimize=True)
    return drawn.getvalue()


def _missing(reason: str) -> NoReturn:
    raise SystemExit(reason)


if __name__ == "__main__":
    draw(ROOT)
