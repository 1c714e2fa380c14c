"""Draw the first page of a node's and of a simulation's report, for the guides: make pictures."""

import io
from pathlib import Path

from PIL import Image

from shared.evidence.facts import Report
from shared.evidence.layout import layout
from shared.files import write_atomically
from shared.pages.pdf_page import page_pictures
from tests.support.paths import ROOT
from tests.support.reports import node_report, simulation_report

PICTURES = {"client/report.png": node_report, "simulations/report.png": simulation_report}
COLOURS = 24
"""Enough for text and a few fills; more bytes than that show nothing more."""


def picture(report: Report) -> bytes:
    """Return the first page as a small PNG."""
    first = Image.open(io.BytesIO(page_pictures(report.study.name, report.language, layout(report))[0]))
    drawn = io.BytesIO()
    first.convert("RGB").quantize(COLOURS).save(drawn, "png", optimize=True)
    return drawn.getvalue()


def draw(root: Path) -> None:
    """Write every picture below a folder."""
    for name, report in PICTURES.items():
        write_atomically(root / name, picture(report()))


if __name__ == "__main__":
    draw(ROOT)
