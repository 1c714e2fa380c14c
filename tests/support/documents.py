"""The repository's documents, and what is written in them."""

import re
from pathlib import Path

from tests.support.paths import ROOT

PARTS = ("client", "server", "shared", "simulations", "docker", "tests")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(page for part in PARTS for page in (ROOT / part).rglob("*.md"))]
)


def text_of(document: str) -> str:
    """A document, by its path in the repository."""
    return (ROOT / document).read_text()


def blocks(document: str, language: str, *, below: str = "") -> list[str]:
    """Its fenced blocks of one language; `below` keeps to one chapter."""
    text = text_of(document)
    if below:
        text = text.split(f"## {below}\n")[1].split("\n## ")[0]
    return fenced(text, language)


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of one language in a text."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(document: str) -> list[str]:
    """What its `console` blocks type, without the comments."""
    lines = [line.split("  #")[0].strip() for block in blocks(document, "console") for line in block.splitlines()]
    return [line for line in lines if line]


def prose(document: str) -> str:
    """Its text without fenced blocks."""
    return re.sub(r"```.*?```", "", text_of(document), flags=re.S)


def anchors(document: str) -> set[str]:
    """What a link to one of its headings ends in."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", prose(document), re.M)
    }


def links(document: str) -> list[tuple[Path, str]]:
    """Files of the repository it links to, each with an anchor or nothing."""
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", prose(document)) if "://" not in target]
    found = []
    for target in targets:
        path, _, anchor = target.partition("#")
        here = ROOT / document
        found.append(((here.parent / path).resolve() if path else here, anchor))
    return found
