"""The shared page in a real browser: it follows events, works without a script, and asks nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from shared.pages.charts import Part, gauge
from shared.web.events import follow
from shared.web.rendering import Pages, Site
from tests.support.browser import PHONE, Visitor, browser
from tests.support.web import OpenSite, open_site

__all__ = ["browser"]
PAGE = """{% extends "base.html" %}{% import "parts.html" as parts %}
{% block title %}{{ name }}{% endblock %}
{% block content %}<h1>{{ name }}</h1>
{% call parts.live("/events") %}<p>count {{ count }}</p>{% endcall %}
{{ parts.picture(gauge) }}
{{ parts.question("/write", token, ask, {}, ["by"], "Count") }}
{{ parts.field("by", "Your name", "Goes nowhere.", required=true) }}
<button>Count</button></form>{% endblock %}"""
NAME = "<script>document.title='taken'</script>"


class Counter:
    """A page that shows how often somebody pressed its button."""

    def __init__(self, folder: Path) -> None:
        (folder / "page.html").write_text(PAGE)
        self.count, self.pages = 0, Pages(folder, Site("node", NAME, (("/", "Count"),)))
        self.routes = [
            Route("/", self.page),
            Route("/events", self.events),
            Route("/write", self.write, methods=["POST"]),
        ]

    def page(self, request: Request) -> Response:
        parts = gauge("Cost", [Part("spent", 1.0, "1 of 3")], limit=3.0)
        return self.pages.response(request, "page.html", name=NAME, count=self.count, gauge=parts)

    def events(self, request: Request) -> Response:
        return follow(request, lambda: f"<p>count {self.count}</p>", every_s=0.02)

    def write(self, request: Request) -> Response:
        self.count += 1
        return RedirectResponse("/", 303)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[OpenSite]:
    counter = Counter(tmp_path)
    with open_site(counter.routes, counter.pages) as opened:
        opened.counter = counter  # type: ignore[attr-defined]
        yield opened


def test_a_page_follows_what_happens_and_asks_nobody_else(site: OpenSite, browser: Browser) -> None:
    visitor = Visitor(browser, site.base)
    assert visitor.open(site.address) == 200 and visitor.page.url == f"{site.base}/"
    visitor.page.get_by_text("count 0").wait_for()
    site.counter.count = 7  # type: ignore[attr-defined]
    visitor.page.get_by_text("count 7").wait_for()
    visitor.page.get_by_label("Your name").fill("Ada")
    visitor.page.get_by_role("button", name="Count").click()
    visitor.page.get_by_text("count 8").wait_for()
    assert visitor.page.title().startswith("<script>") and NAME in visitor.text()
    visitor.expect_accessible()
    visitor.expect_clean()
    assert visitor.page.evaluate("document.cookie") == "" and visitor.page.evaluate("Object.keys(localStorage)") == []
    visitor.close()


def test_a_page_works_without_a_script_on_a_phone_in_the_dark(site: OpenSite, browser: Browser) -> None:
    visitor = Visitor(browser, site.base, java_script_enabled=False, viewport=PHONE, color_scheme="dark")
    visitor.open(site.address)
    visitor.page.get_by_label("Your name").fill("Ada")
    visitor.page.get_by_role("button", name="Count").click()
    visitor.page.get_by_text("count 1").wait_for()
    visitor.page.get_by_role("button", name="Log out").click()
    visitor.page.get_by_text("You are logged out").wait_for()
    visitor.expect_clean()
    visitor.close()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(site: OpenSite, browser: Browser) -> None:
    visitor = Visitor(browser, site.base)
    visitor.open(site.address)
    reached = list[str]()
    for _ in range(5):
        visitor.page.keyboard.press("Tab")
        focused = visitor.page.locator(":focus")
        reached.append(focused.inner_text() or focused.get_attribute("name") or "")
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    assert reached == ["Skip to the content", "Count", "Log out", "by", "Count"]
    visitor.close()
