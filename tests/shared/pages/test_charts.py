"""Drawings: labelled, described, from zero, and never one label over another."""

import math
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from shared.pages.blocks import Picture
from shared.pages.charts import CHARACTER_PX, FONT_PX, WIDTH, Bar, Line, Part, bars, gauge, lines

SVG = "{http://www.w3.org/2000/svg}"
LONG = "the largest site of them all, alone and without anybody's help"
ROWS = [
    Bar(LONG, 0.812, "0.812 (0.790 – 0.840)", 0.79, 0.84),
    Bar("federated", -0.3, "-0.300", tone="ours"),
    Bar("WITHOUT <PRIVACY>", None, "nan", tone="warning"),
]
CLOSE = [Line(f"site number {n} with a name", [(1, 0.5), (8, 0.7 + n / 1e4)]) for n in range(12)]
DRAWN = {
    "bars": bars("Accuracy & more", ROWS, axis="accuracy"),
    "one bar": bars("One", ROWS[:1], axis="accuracy", limits=(0, 1)),
    "nothing finite": bars("None", ROWS[2:], axis="accuracy"),
    "lines": lines("Rounds", CLOSE, across="round", up="accuracy", limits=(0, 1)),
    "large figures": lines("Rounds", [Line("a", [(1, 1.2e7), (2, 3.4e8)])], across="round", up="perplexity"),
    "gauge": gauge("Budget", [Part("spent", 2.5, "2.500"), Part("left", 0.5, "0.500")], limit=3.0),
    "gauge over its limit": gauge("Budget", [Part("spent", 4.5, "4.500"), Part("left", 0.0, "0.000")], limit=3.0),
}


def boxes(picture: Picture) -> list[tuple[str, float, float, float, float]]:
    """Each label with the place that it takes."""
    found = []
    for element in ET.fromstring(picture.svg).iter(f"{SVG}text"):  # noqa: S314 - our own
        written = "".join(element.itertext()) if not len(element) else (element[0].tail or "")
        width, x, y = len(written) * CHARACTER_PX, float(element.attrib["x"]), float(element.attrib["y"])
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[element.attrib["text-anchor"]] * width
        found.append((written, left, left + width, y - 0.75 * FONT_PX, y + 0.2 * FONT_PX))
    return found


@pytest.mark.parametrize("name", DRAWN)
def test_no_label_lies_over_another_or_beyond_the_edge(name: str) -> None:
    placed = boxes(DRAWN[name])
    assert len(placed) > 1
    over = [
        (one[0], other[0])
        for one, other in combinations(placed, 2)
        if one[1] < other[2] and other[1] < one[2] and one[3] < other[4] and other[3] < one[4]
    ]
    assert over == []
    assert [text for text, left, right, _, _ in placed if left < -1 or right > WIDTH + 1] == []


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_says_what_it_shows_to_whoever_cannot_see_it(name: str) -> None:
    root = ET.fromstring(DRAWN[name].svg)  # noqa: S314 - our own
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.attrib["role"] == "img" and root.attrib["aria-label"]
    assert title is not None and title.text and description is not None and description.text
    assert DRAWN[name].says == f"{title.text}. {description.text}"


def test_a_bar_is_as_long_as_its_value_from_zero() -> None:
    drawn = bars("", [Bar("a", 10.0, "10"), Bar("b", 1000.0, "1000")], axis="bytes").svg
    lengths = [float(one.attrib["width"]) for one in ET.fromstring(drawn).iter(f"{SVG}rect")]  # noqa: S314 - our own
    assert lengths[1] == pytest.approx(100 * lengths[0], rel=0.05), "no axis is logarithmic"


def test_what_is_not_finite_is_left_out_of_lines_and_named_beside_bars() -> None:
    drawn = lines("", [Line("a", [(1, math.nan), (2, 3.0), (3, math.inf)])], across="", up="").svg
    assert "nan" not in drawn and "inf" not in drawn and drawn.count("<circle") == 1
    assert "nan" in bars("", ROWS[2:], axis="").svg and "<rect" not in bars("", ROWS[2:], axis="").svg


def test_a_name_that_is_cut_is_there_as_a_whole_for_the_pointer() -> None:
    drawn = DRAWN["bars"].svg
    assert "…" in drawn and f"<title>{LONG.replace(chr(39), '&#x27;')}</title>" in drawn
    assert "WITHOUT &lt;PRIVACY&gt;" in drawn


NAMES_ALIKE = {
    "at the end": ["learning rate 0.05, local steps 20, rank 4", "learning rate 0.05, local steps 20, rank 8"],
    "at the start": ["vader with four sites and one seed", "reviews with four sites and one seed"],
    "in the middle": ["head learning rate 0.05, local steps 20", "head learning rate 0.3, local steps 20"],
    "in both halves": [
        f"learning rate {rate}, local steps {steps}, sampling rate 0.05" for rate in (0.1, 0.2) for steps in (5, 9)
    ],
}


@pytest.mark.parametrize("where", NAMES_ALIKE)
def test_names_that_differ_look_different_after_they_are_cut(where: str) -> None:
    names = NAMES_ALIKE[where]
    curves = lines("", [Line(name, [(1, 0.5), (2, 0.6)]) for name in names], across="", up="")
    drawn = bars("", [Bar(name, 0.5, "0.5") for name in names], axis="")
    for picture, width in ((curves, 190), (drawn, 225)):
        written = [text for text, *_ in boxes(picture) if "…" in text]
        assert len(written) == len(set(written)) == len(names)
        assert all(len(text) * CHARACTER_PX <= width for text in written)


def test_a_name_that_is_cut_and_like_no_other_keeps_its_start() -> None:
    drawn = bars("", [Bar(LONG, 0.5, "0.5"), Bar("a", 0.5, "0.5")], axis="")
    assert any(text.startswith("the largest site of") and text.endswith("…") for text, *_ in boxes(drawn))


def test_names_that_no_cut_tells_apart_keep_their_start_and_show_that_they_are_cut() -> None:
    names = [f"{'a' * 60}{letter}{'a' * 60}" for letter in "bc"]
    drawn = bars("", [Bar(name, 0.5, "0.5") for name in names], axis="")
    written = [text for text, *_ in boxes(drawn) if text.startswith("aaa")]
    assert len(written) == 2 and all(text.endswith("…") for text in written)
