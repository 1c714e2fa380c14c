"""Whatever a name holds, a page shows it as text; scripts on a page are those that were vendored."""

import hashlib
import re
from pathlib import Path

import pytest
from starlette.requests import Request

from shared.pages.blocks import Card, Cards, Code, Facts, Heading, Paragraph, Picture, Row, Table
from shared.pages.charts import Bar, Line, Part, bars, gauge, lines
from shared.web.rendering import STATIC, Pages, Site, drawing
from shared.web.sessions import Session
from tests.support.paths import ROOT

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
ROOMS = ("shared", "client", "server", "simulations")
TEMPLATES = [path for room in ROOMS for path in (ROOT / room).rglob("templates/*.html")]


@pytest.mark.guarantee("whatever a name or a text holds, a page shows it as text.")
def test_texts_are_shown_as_texts(tmp_path: Path) -> None:
    blocks = [
        Heading(HOSTILE),
        Paragraph(HOSTILE),
        Cards([Card(HOSTILE, HOSTILE, HOSTILE)]),
        Facts([(HOSTILE, Code(HOSTILE))]),
        Table([HOSTILE], [Row([HOSTILE])]),
        bars(HOSTILE, [Bar(HOSTILE, 1.0, HOSTILE)], axis=HOSTILE),
        lines(HOSTILE, [Line(HOSTILE, [(0, 0), (1, 1)])], across=HOSTILE, up=HOSTILE),
        gauge(HOSTILE, [Part(HOSTILE, 1.0, HOSTILE)], limit=2.0),
    ]
    (tmp_path / "page.html").write_text(
        '{% extends "base.html" %}{% import "parts.html" as parts %}{% block title %}{{ name }}{% endblock %}'
        "{% block content %}{% for block in blocks %}{{ parts.show(block, name) }}{% endfor %}"
        "{{ parts.field(name, name, name, name) }}"
        "{{ parts.question(name, token, ask, {name: name}, [], name) }}</form>{% endblock %}"
    )
    pages = Pages(tmp_path, Site("node", HOSTILE, ((HOSTILE, HOSTILE),), HOSTILE))
    session = Session(HOSTILE, HOSTILE, 0.0)
    scope = {"type": "http", "path": "/", "headers": [], "method": "GET", "state": {"session": session}}
    text = pages.text(Request(scope), "page.html", name=HOSTILE, blocks=blocks)
    assert "<script>alert" not in text and "<img" not in text and "49" not in text
    assert text.count("&lt;script&gt;") > 20


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_template_unescapes_scripts_or_styles_by_itself(path: Path) -> None:
    text = path.read_text().replace("{{ site.root }}", "")  # nothing but /word, or nothing
    assert not re.search(r"\|\s*safe|autoescape|Markup", text), "everything is escaped; drawings come by `drawing`"
    assert not re.search(r"<script(?! src=\"/static/)|<style|\sstyle=|\son\w+=|javascript:|hx-on|hx-vals=.js", text)
    assert not re.search(r"https?://|src=\"(?!/static/)", text), "a page asks nobody but its own process"


@pytest.mark.parametrize("root", ["//evil.example", "https://evil.example", "/operator/", "/a/b", "x", "/\n"])
def test_what_stands_before_the_paths_of_a_site_is_one_plain_word(root: str) -> None:
    with pytest.raises(ValueError, match="a beginning of paths"):
        Site("node", "north", root=root)
    assert Site("node", "north", root="/operator").root == "/operator"


def test_only_drawings_are_taken_as_they_are() -> None:
    with pytest.raises(TypeError):
        drawing("<svg/>")  # type: ignore[arg-type]
    assert drawing(Picture("<svg/>", "")) == "<svg/>"


def test_vendored_scripts_are_the_ones_whose_digests_are_written_down() -> None:
    listed = [line.split() for line in (STATIC / "vendored.txt").read_text().splitlines() if not line.startswith("#")]
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name, *_ in listed} == {
        name: digest for name, digest, *_ in listed
    }
    scripts = {str(path) for room in ROOMS for path in (ROOT / room).rglob("*.js")}
    assert scripts == {str(STATIC / name) for name, *_ in listed}, "no other script"


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits[:6]
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_pair_of_colours_that_carries_text_can_be_read(scheme: int) -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1."""
    style = (STATIC / "style.css").read_text()
    section = re.findall(r":root \{(.*?)\}", style, re.S)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", section))
    pairs = [(text, ground) for text in ("ink", "grey", "accent", "bad") for ground in ("ground", "panel")]
    pairs += [("on-accent", "accent"), ("accent", "soft"), ("good", "good-soft"), ("warn", "warn-soft")]
    pairs += [("bad", "bad-soft"), ("ink", "warn-soft"), ("ink", "good-soft"), ("ink", "bad-soft")]
    for text, ground in pairs:
        low, high = sorted((_luminance(colours[text]), _luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
