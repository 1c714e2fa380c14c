"""A real Chromium without a window, and what a page must not do in it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
SERIOUS = ("serious", "critical")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WITHIN_MS = 60_000.0


@contextmanager
def chromium(not_here: Callable[[str], NoReturn]) -> Iterator[Browser]:
    """Yields a running Chromium; where there is none, the test is skipped, or fails if CI is to have it.

    Use it through the fixture `browser`, which ends with its file: as long as one runs, `asyncio.run` does not.
    """
    program = shutil.which("chromium")
    if program is None:
        not_here("chromium is not installed; it runs where Debian's chromium is (apt-get install)")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # as root, and in small containers
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield started
        finally:
            started.close()


class Visitor:
    """Someone who looks at one site in a context of their own, and all that their browser noticed meanwhile.

    Args:
        browser: from the fixture.
        base: beginning of every address of the site, such as http://127.0.0.1:8080.
        of_context: for the browser's context, such as `color_scheme="dark"` or `java_script_enabled=False`.
    """

    def __init__(self, browser: Browser, base: str, **of_context: Any) -> None:
        self._context = browser.new_context(**{"viewport": DESKTOP} | of_context)
        self._context.set_default_timeout(WITHIN_MS)
        self.base, self.complaints, self.elsewhere = base, list[str](), list[str]()
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def open(self, path: str = "/") -> int:
        """Go to a page; returns the status of its answer."""
        answer = self.page.goto(path if path.startswith("http") else self.base + path)
        return 0 if answer is None else answer.status

    def text(self) -> str:
        """Return the page's words."""
        return self.page.locator("body").inner_text()

    def cookies(self) -> list[Any]:
        """Return the cookies of this context."""
        return self._context.cookies()

    def close(self) -> None:
        """Leave."""
        self._context.close()

    def expect_clean(self) -> None:
        """Fail if the console complained, a script failed, or anything but the site was asked for."""
        assert self.complaints == [] and self.elsewhere == []

    def expect_accessible(self) -> None:
        """Fail if axe-core finds a serious violation of WCAG 2.1 A or AA, or of its best practices."""
        found = self.page.evaluate(
            f"async () => {{ {AXE}\n return await axe.run(document, {{resultTypes: ['violations']}}) }}"
        )
        serious = {
            f"{one['id']}: {one['help']}: {node['html'][:160]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        }
        assert serious == set()

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _requested(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "about:", "blob:")):
            self.elsewhere.append(url)


@pytest.fixture(scope="module")
def browser(not_here: Callable[[str], NoReturn]) -> Iterator[Browser]:
    """One Chromium for the tests of a file."""
    with chromium(not_here) as started:
        yield started
