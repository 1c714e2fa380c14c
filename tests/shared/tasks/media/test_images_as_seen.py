"""Images as people see them: dark X-rays are not black, photographs stand upright, and ledgers know both as before."""

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.tasks.images import ORIENTATION, image_notes, open_image
from shared.tasks.media_content import image_digest


def greys(*values: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.array([values], dtype=np.uint16)).save(target, "PNG")
    return target.getvalue()


def photograph(orientation: int) -> bytes:
    image, target = Image.new("RGB", (2, 1), "black"), io.BytesIO()
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(target, "PNG", exif=exif)
    return target.getvalue()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_greys_of_any_depth_fill_the_range(bits: int) -> None:
    content = greys(0, 1 << (bits - 1), (1 << bits) - 1)
    assert np.asarray(open_image(content)).tolist() == [[0, 128, 255]]
    notes = image_notes(open_image(content, as_it_is=True))
    assert [f"at most {bits} bits" in note for note in notes] == [True] * (bits < 16)


@pytest.mark.parametrize(("orientation", "seen"), [(1, (2, 1)), (3, (2, 1)), (6, (1, 2)), (8, (1, 2)), (77, (2, 1))])
def test_photographs_stand_upright(orientation: int, seen: tuple[int, int]) -> None:
    image = open_image(photograph(orientation))
    assert image.size == seen
    assert image.getpixel((0, 0)) == ((0, 0, 0) if orientation in (3, 8) else (255, 255, 255))
    notes = image_notes(open_image(photograph(orientation), as_it_is=True))
    assert len(notes) == (orientation in range(2, 9))


def test_a_broken_note_of_a_camera_loses_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Any:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert open_image(photograph(6)).size == (2, 1)


def test_ledgers_know_images_by_their_stored_pixels_and_upper_bits() -> None:
    upper = hashlib.sha256(bytes([0] * 3 + [8] * 3 + [15] * 3)).hexdigest()
    assert image_digest(greys(0, 2048, 4095)) == f"pixels 3x1 {upper}"
    assert image_digest(photograph(6)) == image_digest(photograph(1))
