"""Write blocks as one HTML file that needs no network, runs no script, and prints well."""

import html
from collections.abc import Sequence

from shared.pages.blocks import Block, Cards, Cell, Code, Facts, Heading, Link, Paragraph, Picture, Table

STYLE = """
:root{color-scheme:light}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1d2329;background:#fff;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.lead{font-size:1.1rem}.small{font-size:.85rem;color:#5a636c}
.box{border-left:4px solid #8a5a00;background:#fff7e6;padding:.6rem 1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.75rem;margin:1rem 0}
.card{border:1px solid #d5dbe1;border-radius:6px;padding:.6rem .8rem}.card b{display:block;font-size:1.4rem}
.card span{font-size:.85rem;color:#5a636c}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.3rem .5rem;border-bottom:1px solid #dde2e7;text-align:right;vertical-align:top}
th:first-child,td:first-child,.facts td,.facts th{text-align:left}.facts th{font-weight:400;color:#5a636c;width:16rem}
code{font-size:.85em}code,.facts td{overflow-wrap:anywhere}.warning td{color:#b3261e}.ours td{font-weight:600}
svg{display:block;width:100%;height:auto;margin:.5rem 0}svg text{font-family:system-ui,sans-serif}
@media screen and (max-width:40rem){.drawn svg{min-width:34rem}.facts th{width:auto}}
@media print{body{margin:0;font-size:11px}.card,svg,tr{break-inside:avoid}}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is loaded and nothing runs, whatever a name on the page holds."""


def html_page(title: str, language: str, blocks: Sequence[Block], *, hidden_json: str = "") -> str:
    """Return a whole page; every text from outside is escaped.

    Args:
        title: of the window.
        language: of the text, such as `en`.
        blocks: in order.
        hidden_json: what programs read from the page; browsers show none of it. Every < in it is escaped.
    """
    script = f'<script type="application/json" id="report">{hidden_json}</script>' if hidden_json else ""
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{escaped(title)}</title><style>{STYLE}</style>'
    )
    body = "\n".join(map(_written, blocks))
    inner = f"<head>{head}</head><body><main>\n{body}\n</main>{script}</body>"
    return f'<!doctype html><html lang="{language}">{inner}</html>\n'


def escaped(text: str) -> str:
    """Return a text as HTML shows it."""
    return html.escape(text)


def _written(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escaped(text)}</h{level}>"
        case Paragraph(text, kind):
            return f"<p>{escaped(text)}</p>" if kind == "plain" else f'<p class="{kind}">{escaped(text)}</p>'
        case Cards(cards):
            inner = "".join(
                f'<div class="card"><span>{escaped(card.name)}</span><b>{escaped(card.figure)}</b>'
                f"<span>{escaped(card.words)}</span></div>"
                for card in cards
            )
            return f'<div class="cards">{inner}</div>'
        case Facts(rows):
            lines = "".join(
                f'<tr><th scope="row">{escaped(name)}</th><td>{_cell(cell)}</td></tr>' for name, cell in rows
            )
            return f'<table class="facts"><tbody>{lines}</tbody></table>'
        case Picture(svg, _):
            return f'<div class="wide drawn" tabindex="0">{svg}</div>'
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in table.header)
    body = "".join(
        f'<tr class="{row.tone}">' + "".join(f"<td>{_cell(cell)}</td>" for cell in row.cells) + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    match cell:
        case Code(text):
            return f"<code>{escaped(text)}</code>"
        case Link(places):
            return ", ".join(f'<a href="{escaped(address)}">{escaped(text)}</a>' for text, address in places)
        case _:
            return escaped(cell)
