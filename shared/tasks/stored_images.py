"""Tell what an image file says besides its pixels, and make images that would be lost without it visible."""

import io
from typing import TYPE_CHECKING

import numpy as np

from shared.records.ragged import Note

if TYPE_CHECKING:
    from PIL.Image import Image

DEPTHS = (8, 10, 12, 14, 16)
BRIGHTEST = 65_535
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""Number of the TIFF tag that tells how numbers become greys, and its value where they are degrees of black."""
OF_FRAMES = ("GIF", "PNG", "TIFF", "WEBP")
"""Formats of several pages or frames. Cameras add pictures of their own to a JPEG, such as one for depth."""


def file_notes(content: bytes, image: "Image") -> list[Note]:
    """Return what is lost of an image file: further pages or frames, and the lower half of colours of 16 bits."""
    from PIL import Image

    if image.format not in OF_FRAMES:
        return []
    try:  # once more: looking for a second frame unloads the first one
        header = Image.open(io.BytesIO(content), formats=(image.format,))
        deep = any(";16" in str(tile) for tile in header.tile)
        animated = bool(getattr(header, "is_animated", False))
    except Exception:  # what follows the first frame is no reason to lose it
        return []
    notes = []
    bits = _colour_depth(image) if deep else DEPTHS[-1]
    if bits < DEPTHS[-1]:
        kind = f"images hold colours of at most {bits} bits in 16, and were read as colours of 16: as almost black"
        notes.append(Note(f"its colours have at most {bits} bits", kind=kind))
    if animated:
        kind = "images have several pages or frames, of which only the first was read"
        notes.append(Note("it has several pages or frames", kind=kind))
    return notes


def _colour_depth(image: "Image") -> int:
    """Return the fewest bits that hold the brightest colour, of which Pillow reads the upper 8; 16 for black."""
    if image.mode not in ("RGB", "RGBA"):
        return DEPTHS[-1]
    brightest = int(np.asarray(image)[..., :3].max(initial=0))
    return next((bits for bits in DEPTHS if 0 < brightest < 1 << (bits - 8)), DEPTHS[-1])


def out_of_range(image: "Image") -> str | None:
    """Return what is wrong with greys that are no brightness from 0 to 65,535, such as those of a CT; None if nothing.

    Cut off at 0 and 65,535, air and bone would look alike.
    """
    values = np.asarray(image)
    darkest, brightest = int(values.min(initial=0)), int(values.max(initial=0))
    if darkest >= 0 and brightest <= BRIGHTEST:
        return None
    return f"holds values from {darkest} to {brightest}; greys are read from 0 to {BRIGHTEST:,}, so scale it to them"


def white_is_zero(image: "Image") -> bool:
    """Return true for greys of 16 bits that count from white, which Pillow reads as if they counted from black."""
    return image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO


def drawn_in_transparency(image: "Image") -> bool:
    """Return true for an image whose transparency shows something, and whose colours show nothing but a stray pixel.

    Where more than one pixel in a thousand is of another colour, or a tenth as many as the transparency draws, colours
    show something.
    """
    if not image.has_transparency_data:
        return False
    *colours, transparency = _histograms(image if image.mode == "RGBA" else image.convert("RGBA"))
    pixels, stray = sum(transparency), max(sum(channel) - max(channel) for channel in colours)
    return 1000 * stray <= pixels and pixels - max(transparency) > 10 * stray


def opaque(image: "Image") -> "Image":
    """Lay an image that is drawn in its transparency on white, or on black where it is white; others stay as they are.

    Pillow drops transparency, and would leave one colour of it.
    """
    from PIL import Image

    if not drawn_in_transparency(image):
        return image
    drawing = image.convert("RGBA")
    colour = tuple(channel.index(max(channel)) for channel in _histograms(drawing)[:3])
    without_stray = Image.new("RGBA", image.size, colour)
    without_stray.putalpha(drawing.getchannel("A"))
    white, black = (Image.new("RGBA", image.size, paper) for paper in ("white", "black"))
    seen_on_white = any(_spans(Image.alpha_composite(white, without_stray).convert("RGB")))
    return Image.alpha_composite(white if seen_on_white else black, drawing).convert("RGB")


def _histograms(image: "Image") -> list[list[int]]:
    """Return how many pixels have each value, by channel, without unpacking them."""
    counts = image.histogram()
    return [counts[start : start + 256] for start in range(0, len(counts), 256)]


def _spans(image: "Image") -> list[int]:
    """Return how far each channel's values are apart, in the memory of the image itself."""
    spans: list[int] = np.ptp(np.array(image.getextrema()), axis=1).tolist()
    return spans
