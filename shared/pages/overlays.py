"""Draw what speaks for an answer: words with their weights, and an image under the cells that matter.

Nothing is told by colour alone: what speaks for the answer is underlined, what speaks against it is struck through by
dashes below, and each carries its figure.
"""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.pages.blocks import Picture
from shared.pages.charts import COLOURS, FONT, FONT_PX, GREY, INK, WARNING

WIDTH, LINE_HEIGHT, CHARACTER_PX = 720.0, 30.0, 8.2
NARROW, BROAD = set("iljtfrI.,;:!|'()[] "), set("mwMW@%&QOGD")
FOR, AGAINST = COLOURS[0], WARNING
SIDE, LEAST_SHOWN = 288.0, 0.02
"""Length of a picture's longer side; share of the largest weight below which nothing is marked."""


def weighted_words(title: str, words: Sequence[tuple[str, float]]) -> Picture:
    """Draw words in lines, each with its weight: deeper colour for a larger share of the largest one."""
    largest = max((abs(weight) for _, weight in words), default=0.0) or 1.0
    x, y, parts = 0.0, 20.0, []
    for word, weight in words:
        shown = " ".join(word.split())
        width = _width(shown) + 6
        if x and x + width > WIDTH:
            x, y = 0.0, y + LINE_HEIGHT
        share = abs(weight) / largest
        if share >= LEAST_SHOWN:
            colour, dash = (FOR, "") if weight > 0 else (AGAINST, ' stroke-dasharray="3 2"')
            parts.append(
                f'<rect x="{x:.1f}" y="{y - 15:.1f}" width="{width:.1f}" height="20" fill="{colour}" '
                f'fill-opacity="{0.45 * share:.2f}"/><line x1="{x:.1f}" y1="{y + 6:.1f}" x2="{x + width:.1f}" '
                f'y2="{y + 6:.1f}" stroke="{colour}" stroke-width="{0.5 + 2 * share:.1f}"{dash}/>'
            )
        parts.append(
            f'<text x="{x + 3:.1f}" y="{y:.1f}" fill="{INK}" textLength="{width - 6:.1f}" '
            f'lengthAdjust="spacingAndGlyphs"><title>{weight:+.3f}</title>{html.escape(shown)}</text>'
        )
        x += width + 3
    first = sorted(words, key=lambda pair: -abs(pair[1]))[:5]
    says = "Largest weights: " + ", ".join(f"{' '.join(word.split())} {weight:+.2f}" for word, weight in first) + "."
    return _drawing(title, says, WIDTH, y + 14, parts)


def heat_map(title: str, image: NDArray[np.uint8], cells: NDArray[np.float64]) -> Picture:
    """Draw an image twice: as it is, and under a grid of what its cells weigh.

    Args:
        title: of the drawing.
        image: (height, width, channels), with one channel or three.
        cells: weights (rows, columns), from its top left corner.
    """
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(packed, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"
    scale = SIDE / max(image.shape[:2])
    height, width = max(60.0, image.shape[0] * scale), max(60.0, image.shape[1] * scale)
    left = WIDTH / 2
    place = f'width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" href="{source}"'
    parts = [f'<image x="0" y="0" {place}/>', f'<image x="{left:.1f}" y="0" {place} opacity="0.35"/>']
    largest = float(np.abs(cells).max()) or 1.0
    rows, columns = cells.shape
    tall, wide = height / rows, width / columns
    for (row, column), weight in np.ndenumerate(cells):
        share = abs(float(weight)) / largest
        colour, dash = (FOR, "") if weight > 0 else (AGAINST, ' stroke-dasharray="3 2"')
        parts.append(
            f'<rect x="{left + column * wide:.1f}" y="{row * tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
            f'fill="{colour}" fill-opacity="{0.7 * share:.2f}" stroke="{colour if share > 0.5 else GREY}" '
            f'stroke-opacity="{0.15 + 0.85 * (share > 0.5):.2f}"{dash}><title>{float(weight):+.3f}</title></rect>'
        )
    row, column = np.unravel_index(np.abs(cells).argmax(), cells.shape)
    says = f"Largest weight: {cells[row, column]:+.2f} in row {row + 1} of {rows}, column {column + 1} of {columns}."
    return _drawing(title, says, WIDTH, height + 6, parts)


def _width(text: str) -> float:
    """Return about what a text measures in a face without serifs, so that letters are hardly stretched."""
    return sum(CHARACTER_PX * (0.55 if c in NARROW else 1.3 if c in BROAD else 1.0) for c in text)


def _drawing(title: str, says: str, width: float, height: float, parts: Sequence[str]) -> Picture:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="{FONT}" font-size="{FONT_PX + 2:g}">'
        f"<title>{html.escape(title)}</title><desc>{html.escape(says)}</desc>{''.join(parts)}</svg>"
    )
    return Picture(svg, f"{title}. {says}")
