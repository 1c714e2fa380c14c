"""Fill templates in: everything is escaped but drawings of `shared.pages.charts`, which escape what they are given."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from shared.pages import blocks
from shared.pages.blocks import Picture
from shared.web.sessions import Session

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
ROOT_OF_PATHS = re.compile(r"(?:/[a-z]+)?")


@dataclass(frozen=True)
class Site:
    """Names of one page: whose it is, and where its parts are."""

    role: str
    """Such as `node`."""
    instance: str
    """Which one of them, as a person calls it; also in the cookie's name, because cookies know no ports."""
    navigation: Sequence[tuple[str, str]] = ()
    """Paths and their labels, in order."""
    note: str = ""
    """One sentence that stands below every page."""
    root: str = ""
    """What stands before each of its paths, as a browser sees them, such as `/operator`."""

    def __post_init__(self) -> None:
        if not ROOT_OF_PATHS.fullmatch(self.root):
            raise ValueError(f"Expected a beginning of paths such as /operator, got root={self.root!r}.")


class Pages:
    """Templates of one site over those that all sites share.

    Guarantee: whatever a name or a text holds, a page shows it as text.

    Args:
        folder: the site's own templates; None for the shared ones alone.
        site: names, given to every template as `site`.
    """

    def __init__(self, folder: Path | None, site: Site) -> None:
        self.site = site
        folders = [TEMPLATES] if folder is None else [folder, TEMPLATES]
        self._templates = Environment(
            loader=FileSystemLoader(folders),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"drawing": drawing, "kind": kind}
        self._templates.globals["site"] = site

    def response(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """Return a page, or a part of one.

        Args:
            request: that it answers; the page's forms bear its session's token.
            template: file name.
            status: of the answer.
            headers: beside the usual ones.
            values: for the template.
        """
        return HTMLResponse(self.text(request, template, **values), status, headers=dict(headers or {}))

    def text(self, request: Request, template: str, **values: Any) -> str:
        """Return the text of a page, or of a part of one."""
        session: Session | None = getattr(request.state, "session", None)
        token, ask = ("", None) if session is None else (session.token, session.confirmations.ask)
        known = {"until": getattr(request.state, "until", ""), "may_act": getattr(request.state, "may_act", False)}
        shown = self._templates.get_template(template)
        return shown.render(path=request.url.path, token=token, ask=ask, **known, **values)

    def as_file(self, template: str, **values: Any) -> str:
        """Return the text of a page that no server stands behind: a file to keep, without forms and without a session.

        Args:
            template: file name.
            values: for the template; `style` is the element with the one stylesheet, which such a page holds itself.
        """
        style = Markup(f"<style>{(STATIC / 'style.css').read_text()}</style>")  # noqa: S704 - our own file
        shown = self._templates.get_template(template)
        return shown.render(style=style, path="", token="", ask=None, until="", **values)


def drawing(picture: Picture) -> Markup:
    """Return a drawing as it stands in a page; its texts were escaped when it was drawn."""
    if not isinstance(picture, Picture):
        raise TypeError(f"Expected a picture of shared.pages.charts, got {type(picture).__name__}.")
    return Markup(picture.svg)  # noqa: S704 - the one place; charts escape what they are given


def kind(block: blocks.Block | blocks.Cell) -> str:
    """Return the name of a block's class, by which templates choose how it looks."""
    return type(block).__name__
