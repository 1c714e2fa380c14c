"""Draw a board of real runs for the guide: make pictures.

A small part of the data at four sites, three epsilons, two seeds each; minutes on two cores.
"""

import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from shared.files import write_atomically
from simulations.board.export import export_board
from simulations.board.runs import read_runs
from simulations.sweeps.command import SweepOptions, sweep_file
from tests.support.browser import Visitor, chromium
from tests.support.federation_pictures import missing, small
from tests.support.paths import ROOT

SCENARIO = Path("simulations/scenarios/vader.toml")
OVER = ("privacy.epsilon=1,3,8", "simulation.seed=1..2")
CHANGES = (
    "simulation.data.used=0.12",
    "federation.rounds=4",
    "federation.typical_size=450",
    'simulation.arms=["federated","without-privacy"]',
)
SIZE = {"width": 1100, "height": 1000}


def draw(root: Path) -> None:
    """Run the simulations, and write the picture of their board below a folder."""
    with tempfile.TemporaryDirectory() as folder, chromium(missing) as browser:
        runs = Path(folder) / "runs"
        if not sweep_file(SCENARIO, OVER, CHANGES, runs, SweepOptions(1, False, None, False)):
            raise SystemExit("A run of the board failed.")
        write_atomically(root / "simulations" / "board.png", small(board(browser, Path(folder), runs)))


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
