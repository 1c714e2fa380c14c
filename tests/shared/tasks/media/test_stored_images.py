"""Images that would be lost by how they are stored are made visible, noted or refused, each by itself."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from shared.tasks.image_classification import encode_images
from shared.tasks.images import ImageFormat, open_image
from shared.tasks.media_content import image_digest
from shared.tasks.task_table import counted

COLOURS = ImageFormat((2, 2), (2, 2), False, 3, 0, 1 / 255, (0.5,) * 3, (0.5,) * 3)


def stored(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(target, kind, **options)
    return target.getvalue()


def drawing(colour: Any, *shown: int) -> bytes:
    """Return a row of pixels of one colour, or of several, with these degrees of opacity."""
    pixels = np.zeros((1, len(shown), 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = colour, shown
    return stored(pixels)


def png16(values: Any) -> bytes:
    """Return a PNG file of colours or of greys and opacity with 16 bits (rows, columns, channels), by its standard."""
    height, width, channels = values.shape
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2}[channels], 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)),
        b"IEND": b"",
    }
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff16(values: Any, photometric: int) -> bytes:
    """Return a TIFF file of greys with 16 bits, by its standard."""
    pixels = np.asarray(values, dtype="<u2")
    width, size, start = pixels.shape[1], pixels.nbytes, 8
    tags = [(256, width), (257, len(pixels)), (258, 16), (259, 1), (PHOTOMETRIC_INTERPRETATION, photometric)]
    tags += [(273, start), (277, 1), (278, len(pixels)), (279, size)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", start + size) + pixels.tobytes() + directory


def notes(content: bytes) -> list[str]:
    return counted(encode_images([content], COLOURS)[1])


@pytest.mark.parametrize(("colour", "seen"), [((0, 0, 0), [255, 127, 0]), ((255, 255, 255), [0, 128, 255])])
def test_a_drawing_in_transparency_alone_is_laid_on_paper(colour: tuple[int, ...], seen: list[int]) -> None:
    content = drawing(colour, 0, 128, 255)
    assert np.asarray(open_image(content))[0, :, 0].tolist() == seen
    assert notes(content) == [
        "1 images are of one colour but for their transparency, and were laid on white, or on black if white."
    ]
    assert image_digest(content) != image_digest(drawing(colour, 255, 128, 0)), "other drawings are no copies"


def spotted(stray: int, drawn: int, *, side: int = 50, colour: int = 0) -> bytes:
    """Return a square of one colour, with stray pixels of another and some that are opaque in a transparent ground."""
    pixels = np.zeros((side * side, 4), np.uint8)
    pixels[:, :3], pixels[-stray or len(pixels) :, :3] = colour, 255 - colour
    pixels[:drawn, 3] = 255
    return stored(pixels.reshape(side, side, 4))


@pytest.mark.parametrize("colour", [0, 255])
def test_a_stray_pixel_of_another_colour_hides_no_drawing(colour: int) -> None:
    for stray in (1, 2):
        content = spotted(stray, 600, colour=colour)
        seen = np.asarray(open_image(content))[..., 0].ravel()
        assert (seen[:600] == colour).all() and (seen[600:] == 255 - colour).all()
        assert image_digest(content) != image_digest(spotted(stray, 500, colour=colour)), "other drawings are no copies"
        assert len(notes(content)) == 1


@pytest.mark.parametrize(("stray", "drawn"), [(3, 600), (2, 20), (1, 10), (600, 600), (1, 0)])
def test_where_colours_show_something_transparency_changes_no_pixel(stray: int, drawn: int) -> None:
    content = spotted(stray, drawn)
    with Image.open(io.BytesIO(content)) as image:
        colours = np.asarray(image)[..., :3]
    np.testing.assert_array_equal(np.asarray(open_image(content).convert("RGB")), colours)
    assert notes(content) == [] and image_digest(content) == image_digest(stored(np.ascontiguousarray(colours)))


@pytest.mark.parametrize("shown", [(0, 128, 255), (128, 128, 128), (255, 255, 255)])
def test_transparency_of_an_image_that_shows_more_changes_no_pixel(shown: tuple[int, ...]) -> None:
    colours = np.array([[[9, 8, 7], [0, 0, 0], [250, 1, 2]]], np.uint8)
    content = drawing(colours, *shown)
    np.testing.assert_array_equal(np.asarray(open_image(content).convert("RGB")), colours)
    assert notes(content) == [] and image_digest(content) == image_digest(stored(colours))


def test_a_palettes_transparent_colour_shows_a_drawing() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([0] * 6)
    assert np.asarray(open_image(stored(image, transparency=0)))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("channels", [2, 3])
def test_colours_of_fewer_bits_than_the_file_has_are_noted(channels: int) -> None:
    values = np.full((2, 2, channels), 4095)
    line = "1 images hold colours of at most 12 bits in 16, and were read as colours of 16: as almost black."
    assert notes(png16(values)) == [line]
    assert (
        notes(png16(values * 16)) == notes(png16(values * 0)) == notes(stored(np.full((2, 2, 3), 15, np.uint8))) == []
    )


@pytest.mark.parametrize(("darkest", "brightest"), [(-1000, 3000), (0, 65_536)])
def test_greys_that_are_no_brightness_are_one_rows_own(darkest: int, brightest: int) -> None:
    scan = stored(np.array([[darkest, brightest]], np.int32), "TIFF")
    pixels, problems = encode_images([scan, stored(np.array([[0, 65_535]], np.int32), "TIFF")], COLOURS)
    assert [image is None for image in pixels] == [True, False]
    assert [row for row, _ in problems] == [0]
    assert f"its image holds values from {darkest} to {brightest};" in problems[0].reason


def test_greys_that_count_from_white_are_inverted() -> None:
    values = [[0, 0x8000, 0xFFFF]]
    assert np.asarray(open_image(tiff16(values, 1))).tolist() == [[0, 128, 255]]
    assert np.asarray(open_image(tiff16(values, 0))).tolist() == [[255, 127, 0]]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages_and_frames_after_the_first_are_noted(kind: str) -> None:
    first, other = Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 255)
    alone, both = stored(first, kind), stored(first, kind, save_all=True, append_images=[other])
    assert notes(alone) == []
    assert notes(both) == ["1 images have several pages or frames, of which only the first was read."]
    pixels, _ = encode_images([alone, both, both[: len(alone)]], COLOURS)
    assert pixels[0].tolist() == pixels[1].tolist() == [0] * 12
