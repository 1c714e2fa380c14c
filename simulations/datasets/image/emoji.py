"""Emoji as four organisations draw them: Google, Microsoft, OpenMoji and Twitter, each a natural site with its style.

A label is one of seven of Unicode's categories, as Google's package gives it: Microsoft's puts ten icons elsewhere.
Left out are the category of people, whose drawings are nearly all one figure in many skin tones, and flags.

`icon` is the same for the same emoji at every site, so that one held out is new everywhere. Near copies share it: every
sequence is its first code point (a black cat is a cat; skin tones and genders count for nothing), and so is a series
such as clock faces or one shape in many colours. Other icons may still look alike; faces do.

The table comes in two parts without a common icon: what is chosen on one can be measured on the other.
"""

import hashlib
import importlib
import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.download import packages
from simulations.datasets.image.digit_images import png
from simulations.datasets.npm import npm_packages, read_json

SITES = {
    "google": "@iconify-json/noto",
    "microsoft": "@iconify-json/fluent-emoji-flat",
    "openmoji": "@iconify-json/openmoji",
    "twitter": "@iconify-json/twemoji",
}
CATEGORIES = {
    "Activities": "activities",
    "Animals & Nature": "animals and nature",
    "Food & Drink": "food and drink",
    "Objects": "objects",
    "Smileys & Emotion": "smileys and emotion",
    "Symbols": "symbols",
    "Travel & Places": "travel and places",
}
SIDE, ONE_IN = 84, 5
PRIVATE_USE = range(0xE000, 0xF900)
KEYCAP = "20e3"
SERIES = {
    "letter": range(0x1F1E6, 0x1F200),
    "moon": range(0x1F311, 0x1F319),
    "clock": range(0x1F550, 0x1F568),
    "book": (0x1F4D5, 0x1F4D7, 0x1F4D8, 0x1F4D9),
    "heart": (0x2764, *range(0x1F499, 0x1F49D), 0x1F5A4, 0x1F90D, 0x1F90E, 0x1F9E1, *range(0x1FA75, 0x1FA78)),
    "circle": (0x26AA, 0x26AB, 0x1F534, 0x1F535, *range(0x1F7E0, 0x1F7E5)),
    "square": (0x25AA, 0x25AB, *range(0x25FB, 0x25FF), 0x2B1B, 0x2B1C, *range(0x1F7E5, 0x1F7EC)),
    "diamond": range(0x1F536, 0x1F53A),
}
"""Code points that are drawn as one thing in several states or colours."""
SOURCE_NOTE = f"""# Emoji of four organisations, {{part}}

Drawings of Noto Emoji (Google, Apache-2.0), Fluent Emoji Flat (Microsoft, MIT), OpenMoji (CC BY-SA 4.0) and Twemoji
(Twitter and contributors, CC BY 4.0), from the npm packages @iconify-json/noto 1.2.9, fluent-emoji-flat 1.2.6, openmoji
1.2.29 and twemoji 1.2.5, whose info.json names these licences. Rasterised on white, {SIDE} by {SIDE} pixels, by resvg
0.48 (the package resvg-py 0.5.0). Whoever passes the images of OpenMoji on does so under CC BY-SA 4.0.
"""
Rasterise = Callable[[str], NDArray[np.uint8]]


class Drawing(NamedTuple):
    """One organisation's drawing of one emoji."""

    code: str
    """Code points of the emoji, as in 1f408-200d-2b1b."""
    name: str
    category: str
    svg: str


def build(folder: Path) -> None:
    """Write emoji.parquet: image (PNG bytes, 84 by 84), label, site, icon, name."""
    _build(folder / "emoji.parquet", SOURCE_NOTE.format(part="four icons in five"), for_choices=False)


def build_for_choices(folder: Path) -> None:
    """Write emoji-choices.parquet, the drawings of other icons, on which rates and the like are chosen."""
    _build(folder / "emoji-choices.parquet", SOURCE_NOTE.format(part="one icon in five"), for_choices=True)


def read(archive: bytes) -> Iterator[Drawing]:
    """Read the drawings that have one of the categories, by code.

    Raises:
        DataError: it is another package.
    """
    icons, categories = read_json(archive, "icons.json"), read_json(archive, "metadata.json")["categories"]
    codes: dict[str, str] = {}
    for code, name in read_json(archive, "chars.json").items():
        if name not in codes or int(codes[name][:5].split("-")[0], 16) in PRIVATE_USE:
            codes[name] = code
    named = {
        codes[name]: (name, CATEGORIES[category])
        for written, names in categories.items()
        if (category := written if "&" in written else written.replace(" ", " & ")) in CATEGORIES
        for name in names
    }
    for code, (name, category) in sorted(named.items()):
        width, height = (icons["icons"][name].get(side, icons[side]) for side in ("width", "height"))
        yield Drawing(code, name, category, svg_of(icons["icons"][name]["body"], width, height))


def svg_of(body: str, width: float, height: float) -> str:
    """Return a drawing as a file of its own."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="0 0 {width} {height}" width="{SIDE}" height="{SIDE}">{body}</svg>'


def icon_of(code: str) -> str:
    """Return what emoji and its near copies share."""
    if code.endswith(KEYCAP):
        return "keycap"
    first = code.split("-")[0]
    return next((name for name, codes in SERIES.items() if int(first, 16) in codes), first)


def is_for_choices(icon: str) -> bool:
    """Return True for one icon in five, by a hash of it."""
    return hashlib.sha256(f"emoji for choices {icon}".encode()).digest()[0] % ONE_IN == 0


def rasteriser(wheels: Path) -> Rasterise:
    """Load resvg from its downloaded wheel, without installing it; a process loads it once.

    Raises:
        DataError: it does not run on this machine.
    """
    if "resvg_py" not in sys.modules:
        wheel = next(wheels.glob("resvg_py-*.whl"), None)
        if wheel is None:
            raise DataError("Expected a wheel of resvg-py for this machine, got none.")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(wheels)
        sys.path.insert(0, str(wheels))
        try:
            importlib.import_module("resvg_py")
        except ImportError as error:
            raise DataError("Expected resvg to run on this machine, got an error.", hint=str(error)) from None
        finally:
            sys.path.remove(str(wheels))
    encode: Callable[..., bytes] = sys.modules["resvg_py"].svg_to_bytes
    return lambda svg: _pixels(encode(svg_string=svg, background="white", skip_system_fonts=True))


def _build(target: Path, note: str, *, for_choices: bool) -> None:
    archives = npm_packages("emoji")
    drawn = {site: list(read(archives[package])) for site, package in SITES.items()}
    labels: dict[str, str] = {}
    for drawings in drawn.values():
        for drawing in drawings:
            labels.setdefault(drawing.code, drawing.category)
    with packages("emoji") as wheels:
        rasterise = rasteriser(wheels)
        rows = [
            (png(rasterise(drawing.svg)), labels[drawing.code], site, icon, drawing.name)
            for site, drawings in drawn.items()
            for drawing in drawings
            if is_for_choices(icon := icon_of(drawing.code)) == for_choices
        ]
    pd.DataFrame(rows, columns=["image", "label", "site", "icon", "name"]).to_parquet(target, index=False)
    target.with_name("SOURCE.md").write_text(note)


def _pixels(encoded: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))
