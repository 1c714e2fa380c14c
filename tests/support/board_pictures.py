"""Draw a board of runs for the guide, with made-up figures: make pictures."""

import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from shared.files import write_atomically
from simulations.board.export import export_board
from simulations.board.runs import read_runs
from tests.support.browser import Visitor, chromium
from tests.support.federation_pictures import missing, small
from tests.support.paths import ROOT
from tests.support.results import result, write_run

SIZE = {"width": 1100, "height": 1000}


def draw(root: Path) -> None:
    """Write the picture below a folder."""
    with tempfile.TemporaryDirectory() as folder, chromium(missing) as browser:
        picture = board(browser, Path(folder), results(Path(folder) / "runs"))
        write_atomically(root / "simulations" / "board.png", small(picture))


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
    visitor = Visitor(browser, "file://", viewport=SIZE)
    visitor.open(str(page))
    picture = visitor.page.screenshot()
    visitor.close()
    return picture


if __name__ == "__main__":
    draw(ROOT)
