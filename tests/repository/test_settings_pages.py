"""Every key of a settings file stands on its page, with its values, its default and its meaning."""

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest
from pydantic import BaseModel, Field

from client import settings as node
from server import settings as server
from shared.section import Section
from shared.settings_page import keys_table
from tests.support.documents import links, text_of
from tests.support.paths import ROOT

PAGES = {"client/NODE_TOML.md": node, "server/SERVER_TOML.md": server}


def sections(kind: Any) -> Iterator[type[BaseModel]]:
    """The sections of a settings file, however deep."""
    for field in kind.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from (part, *sections(part))


@pytest.mark.parametrize("page", PAGES)
def test_a_settings_page_is_the_generated_one_and_its_guide_leads_there(page: str) -> None:
    assert text_of(page) == PAGES[page].markdown()
    guide = f"{page.split('/')[0]}/README.md"
    assert (ROOT / page, "") in links(guide)


@pytest.mark.parametrize("settings", [node.NodeSettings, server.ServerSettings])
def test_every_key_of_every_section_has_a_row_with_default_and_meaning(settings: type[BaseModel]) -> None:
    page = text_of("client/NODE_TOML.md" if settings is node.NodeSettings else "server/SERVER_TOML.md")
    for section in list(sections(settings)) or [settings]:
        for name in section.model_fields:
            rows = [row.split(" | ") for row in page.splitlines() if row.startswith(f"| `{name}` |")]
            assert rows and all(len(row) == 4 and all(cell.strip(" |") for cell in row) for row in rows), name
    assert all(field.description for field in settings.model_fields.values())


def test_a_row_says_unit_bounds_and_default_in_words() -> None:
    class Example(Section):
        pause_s: float = Field(default=0.5, ge=0, le=86_400)
        """Time | between two."""
        largest_bytes: int = Field(default=2**20, ge=1)
        """The most."""
        way: Literal["a", "b"]
        """One of two."""
        names: tuple[str, ...] | None = None
        """Some."""

    assert keys_table(Example).splitlines()[2:] == [
        r"| `pause_s` | number of seconds, at least 0, at most 86_400 | `0.5` | Time \| between two. |",
        "| `largest_bytes` | whole number of bytes, at least 1 | `1_048_576` (1 MiB) | The most. |",
        "| `way` | `a` or `b` | must be given | One of two. |",
        "| `names` | list of texts | none | Some. |",
    ]


def test_the_file_that_init_writes_has_only_keys_of_its_page() -> None:
    page = text_of("client/NODE_TOML.md")
    keys = re.findall(r"^#? ?(\w+) = ", node.TEMPLATE, re.M)
    assert len(keys) > 8 and [key for key in keys if f"| `{key}` |" not in page and key != "minilm"] == []
