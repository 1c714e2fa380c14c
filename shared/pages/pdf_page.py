"""Write blocks as a PDF, or as pictures of its pages, with typst and the faces that it brings along.

Faces of the machine are left out, and so is today's date: the same blocks make the same bytes everywhere.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from shared.pages.blocks import Block, Cards, Cell, Code, Facts, Heading, Link, Paragraph, Picture, Table
from shared.pages.charts import FONT

OPENING = f"""
#set page(paper: "a4", margin: (x: 1.6cm, y: 1.4cm), numbering: "1 / 1")
#set text(font: "{FONT}", size: 9pt, fill: rgb("#1d2329"))
#set par(leading: 0.5em, spacing: 0.7em)
#show heading: set block(above: 0.9em, below: 0.5em)
#show heading.where(level: 1): set text(size: 15pt)
#show heading.where(level: 2): set text(size: 11pt)
#set table(stroke: (x: none, top: none, bottom: 0.4pt + rgb("#dde2e7")), inset: (x: 3pt, y: 2.4pt))
"""


def pdf_page(title: str, language: str, blocks: Sequence[Block], *, attached: bytes = b"") -> bytes:
    """Return a PDF; `attached` is a JSON file in it, which its readers can open."""
    return _compiled(_source(title, language, blocks, attached), "pdf")[0]


def page_pictures(title: str, language: str, blocks: Sequence[Block]) -> list[bytes]:
    """Return a PNG of every page."""
    return _compiled(_source(title, language, blocks, b""), "png")


def _compiled(source: str, form: Literal["pdf", "png"]) -> list[bytes]:
    import typst  # 80 MB, for whoever writes a PDF

    written = typst.compile(source.encode(), format=form, font_paths=_faces(), ppi=80)
    pages = written if isinstance(written, list) else [written]
    return [page for page in pages if page is not None]


@cache
def _faces() -> Any:
    import typst

    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)


def _source(title: str, language: str, blocks: Sequence[Block], attached: bytes) -> str:
    parts = [f"#set document(title: {_quoted(title)}, date: none)", OPENING, f"#set text(lang: {_quoted(language)})"]
    if attached:
        data = f'bytes({_quoted(attached.decode())}), relationship: "source", mime-type: "application/json"'
        parts.append(f'#pdf.attach("report.json", {data}, description: "what this report is written from")')
    return "\n".join([*parts, *map(_written, blocks)])


def _written(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"#heading(level: {level}, {_content(text)})"
        case Paragraph(text, kind):
            style = {"lead": "size: 11pt", "small": 'size: 8pt, fill: rgb("#5a636c")'}.get(kind, "")
            inner = f"text({style}{', ' if style else ''}{_content(text)})"
            if kind == "box":
                bar = 'stroke: (left: 2pt + rgb("#8a5a00"))'
                return f'#block(fill: rgb("#fff7e6"), inset: 5pt, width: 100%, {bar}, {inner})'
            return f"#par({inner})"
        case Cards(cards):
            cells = ", ".join(
                f'block(width: 100%, inset: 5pt, radius: 3pt, stroke: 0.5pt + rgb("#d5dbe1"), stack(spacing: 4pt, '
                f'text(size: 7.5pt, fill: rgb("#5a636c"), {_content(card.name)}), text(size: 12pt, weight: "bold", '
                f'{_content(card.figure)}), text(size: 7.5pt, fill: rgb("#5a636c"), {_content(card.words)})))'
                for card in cards
            )
            return f"#grid(columns: (1fr,) * {min(len(cards), 4)}, gutter: 5pt, {cells})"
        case Facts(rows):
            cells = ", ".join(f'text(fill: rgb("#5a636c"), {_content(name)}), {_cell(cell)}' for name, cell in rows)
            return f"#table(columns: (4.2cm, 1fr), {cells})"
        case Picture(svg, says):
            return f'#image(bytes({_quoted(svg)}), format: "svg", width: 100%, alt: {_quoted(says)})'
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    columns = ", ".join(["auto"] + ["1fr"] * (len(table.header) - 1))
    head = ", ".join(f"strong({_content(name)})" for name in table.header)
    styles = {"plain": "text", "ours": 'text.with(weight: "bold")', "warning": 'text.with(fill: rgb("#b3261e"))'}
    rows = "".join(f", ({styles[row.tone]})({_cell(cell)})" for row in table.rows for cell in row.cells)
    align = "align: (x, _) => if x == 0 { left } else { right }"
    return f"#[#set text(size: 8pt)\n#table(columns: ({columns},), {align}, table.header({head}){rows})]"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Code):  # a digest has no place to break a line at, but every fourth letter makes one
        broken = "\u200b".join(cell.text[start : start + 4] for start in range(0, len(cell.text), 4))
        return f'text(font: "DejaVu Sans Mono", size: 7pt, {_content(broken)})'
    return _content(", ".join(text for text, _ in cell.places) if isinstance(cell, Link) else cell)


def _content(text: str) -> str:
    # a quoted text is never markup, whatever it holds
    return f"[#{_quoted(text)}]" if text else "[]"


def _quoted(text: str) -> str:
    plain = "".join(mark if mark.isprintable() or mark == "\u200b" else " " for mark in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
