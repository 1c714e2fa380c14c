"""Emoji of four organisations, from small packages of the same form; the tests themselves fetch nothing."""

import contextlib
import hashlib
import io
import json
import platform
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from shared.errors import DataError
from simulations.datasets import fetch as fetching
from simulations.datasets.image import emoji
from tests.support.paths import ROOT

PIXELS = {
    "emoji": (4161, "acdfb583f227cc2fe7305aa97f47252d256d6ef455a274f638a6e824268cba47"),
    "emoji-choices": (919, "cbcf3bd69abfd5443f76802fdefebf33aee836c95a1950d9b099f1eb0a774d76"),
}


def package_of(categories: dict[str, list[str]], chars: dict[str, str]) -> bytes:
    icons = {name: {"body": f"<path id='{name}'/>"} for name in chars.values()} | {"crab": {"body": "", "height": 33}}
    files = {
        "icons.json": {"icons": icons, "width": 32, "height": 32},
        "metadata.json": {"categories": categories},
        "chars.json": chars,
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(encoded := json.dumps(content).encode())
            archive.addfile(member, io.BytesIO(encoded))
    return packed.getvalue()


def test_drawings_have_a_category_and_the_code_of_the_standard() -> None:
    package = package_of(
        {"Animals Nature": ["cat"], "Food & Drink": ["crab"], "People & Body": ["man"]},
        {"e001": "cat", "1f408": "cat", "1f980": "crab", "1f468": "man", "1f981": "hidden"},
    )
    cat, crab = emoji.read(package)
    assert (cat.code, cat.name, cat.category) == ("1f408", "cat", "animals and nature")
    assert (crab.code, crab.category) == ("1f980", "food and drink")
    assert 'viewBox="0 0 32 32" width="84"' in cat.svg and "<path id='cat'/>" in cat.svg
    assert 'viewBox="0 0 32 33"' in crab.svg


def test_near_copies_are_one_icon() -> None:
    alike = {
        "1f408": ["1f408", "1f408-200d-2b1b"],
        "1f9d1": ["1f9d1-1f3fb", "1f9d1-1f3ff-200d-2642"],
        "keycap": ["0031-20e3", "0023-20e3", "20e3"],
        "clock": ["1f550", "1f567"],
        "heart": ["2764", "2764-200d-1f525", "1f49a"],
    }
    assert {icon: {emoji.icon_of(code) for code in codes} for icon, codes in alike.items()} == {
        icon: {icon} for icon in alike
    }
    assert emoji.icon_of("1f568") == "1f568"


def test_two_parts_share_no_icon_and_every_site_takes_the_standards_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animals = {f"{code:x}": f"animal-{code:x}" for code in range(0x1F400, 0x1F440)}
    of_google = package_of({"Animals & Nature": [*animals.values(), "crab"]}, animals | {"1f980": "crab"})
    of_microsoft = package_of({"Food & Drink": ["crab"]}, {"1f980": "crab"})
    packages = dict.fromkeys(emoji.SITES.values(), of_google) | {emoji.SITES["microsoft"]: of_microsoft}

    @contextlib.contextmanager
    def wheels(name: str) -> Iterator[Path]:
        yield tmp_path

    monkeypatch.setattr(emoji, "npm_packages", lambda name: packages)
    monkeypatch.setattr(emoji, "packages", wheels)
    monkeypatch.setattr(
        emoji, "rasteriser", lambda wheels: lambda svg: np.full((84, 84, 3), zlib.crc32(svg.encode()) % 256, np.uint8)
    )
    measured, chosen_on = (pd.read_parquet(fetching.fetch(name, tmp_path)) for name in PIXELS)
    assert len(measured) + len(chosen_on) == 3 * 65 + 1
    assert not set(measured.icon) & set(chosen_on.icon) and len(measured) > len(chosen_on) > 0
    both = pd.concat([measured, chosen_on])
    assert set(both.label) == {"animals and nature"} and both.groupby("icon").size().max() == 4
    with Image.open(io.BytesIO(measured.image[0])) as image:
        assert (image.size, image.mode) == ((84, 84), "RGB")
    assert "CC BY-SA 4.0" in (tmp_path / "emoji" / "SOURCE.md").read_text()


def test_without_a_wheel_for_this_machine_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(emoji.sys.modules, "resvg_py", raising=False)
    with pytest.raises(DataError, match="wheel of resvg-py for this machine"):
        emoji.rasteriser(tmp_path)


@pytest.mark.parametrize("name", PIXELS)
def test_fetched_images_are_the_measured_ones(name: str) -> None:
    source = ROOT / "data" / name / f"{name}.parquet"
    if not source.is_file():
        pytest.skip(f"`fedvault-sim data fetch {name}` brings it")
    table, pixels = pd.read_parquet(source), hashlib.sha256()
    for content in table.image:
        with Image.open(io.BytesIO(content)) as image:
            pixels.update(image.tobytes())
    rows, digest = PIXELS[name]
    assert len(table) == rows and set(table.site) == set(emoji.SITES) and len(set(table.label)) == 7
    if platform.machine() in ("x86_64", "AMD64"):  # other processors may round a pixel differently
        assert pixels.hexdigest() == digest
