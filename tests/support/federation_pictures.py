"""Draw the pages of a real small federation for the guides: make pictures.

A server and three nodes run on this machine, as `make federation` leaves them, and the third node's operator decides in
a browser. Minutes; what is drawn is what those processes did.
"""

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

from PIL import Image
from playwright.sync_api import Browser

from client.dashboard.app import Dashboard
from client.operator_api.asking import OperatorClient
from client.settings import folders, load_node
from server.dashboard.site import ServerSite, server_pages
from server.dashboard.watch import Watch
from server.run_store.store import Store
from server.settings import Home
from shared.files import write_atomically
from simulations.e2e import walkthrough
from simulations.e2e.federation import Federation, wait_until
from tests.support.browser import Visitor, chromium
from tests.support.paths import ROOT
from tests.support.web import open_site

COLOURS = 128
NODE, LEDGER = {"width": 1100, "height": 640}, {"width": 1100, "height": 1000}
SERVER, RUN = {"width": 1100, "height": 536}, {"width": 1100, "height": 740}
LOOKED_MS, ENDS_S = 300_000.0, 1800.0
FIRST, NEXT = "sentiment", "letters to read first"
SEEN_FROM = 2
"""Finished rounds, after which the server's page has figures to show."""


def draw(root: Path) -> None:
    """Start a federation, and write the pictures of its pages below a folder."""
    with tempfile.TemporaryDirectory() as scratch, chromium(missing) as browser:
        folder = Path(scratch) / "federation"
        try:
            walkthrough.up(folder, 0)
            for name, picture in pictures(folder, browser):
                write_atomically(root / name, small(picture))
        finally:
            walkthrough.down(folder)


def pictures(folder: Path, browser: Browser) -> Iterator[tuple[str, bytes]]:
    """Yields each picture of a federation whose newest study waits for the third node."""
    federation = Federation(folder.resolve())
    with Store(Home(federation.home).database()) as store:
        run, following = store.runs()[0], federation.start_study(next_study(folder))
        with node_page(federation, browser) as node, server_page(federation, store, browser) as server:
            approve(node)
            wait_until(lambda: answering(server), "a round is under way that somebody has answered", timeout_s=ENDS_S)
            yield "server/dashboard.png", server.page.screenshot()
        wait_until(lambda: store.run(run.id).state == "finished", "the study is finished", timeout_s=ENDS_S)
        with server_page(federation, store, browser) as server:
            server.page.set_viewport_size(RUN)
            server.open(f"/runs/{run.id}")
            yield "server/dashboard-run.png", server.page.screenshot()
        federation.shown(walkthrough.YOURS, following)
        with node_page(federation, browser) as node:
            yield "client/page.png", node.page.screenshot(full_page=True)
            node.page.get_by_role("link", name=f"Look at {NEXT}").click()
            node.page.get_by_role("heading", name="Your decision").wait_for(timeout=LOOKED_MS)
            yield "client/page-study.png", node.page.screenshot(full_page=True)
            node.page.set_viewport_size(LEDGER)
            node.open("/ledger")
            yield "client/page-ledger.png", node.page.screenshot()


def next_study(folder: Path) -> Path:
    """Write the study that waits behind the first one; returns its file."""
    declared, file = (folder / walkthrough.STUDY.name).read_text(), folder / "next.toml"
    declared = declared.replace(f'name = "{FIRST}"', f'name = "{NEXT}"')
    file.write_text(declared.replace("epsilon = 3.0", "epsilon = 1.0"))
    return file


@contextmanager
def node_page(federation: Federation, browser: Browser) -> Iterator[Visitor]:
    """Yields somebody who looks at the page of the node that is to decide."""
    config = federation.config(walkthrough.YOURS)
    with closing(OperatorClient(folders(config, load_node(config)).operator_socket)) as vault:
        page = Dashboard(vault, walkthrough.YOURS, allow_decisions=True)
        with open_site(page.routes, page.pages) as site:
            visitor = Visitor(browser, site.base, viewport=NODE)
            visitor.open(site.address)
            yield visitor
            visitor.close()


@contextmanager
def server_page(federation: Federation, store: Store, browser: Browser) -> Iterator[Visitor]:
    """Yields somebody who looks at the server's page."""
    home = Home(federation.home)
    pages = server_pages(home.settings().hosts[0])
    with open_site(ServerSite(Watch(home, store), pages).routes(), pages) as site:
        visitor = Visitor(browser, site.base, viewport=SERVER)
        visitor.open(site.address)
        yield visitor
        visitor.close()


def approve(node: Visitor) -> None:
    """Look at the study that waits, and say yes, as its operator does."""
    node.page.get_by_role("link", name=f"Look at {FIRST}").click()
    form = node.page.get_by_role("form", name="Approve")
    form.wait_for(timeout=LOOKED_MS)
    form.get_by_label("Your name").fill("Dr. Weber")
    form.get_by_label("Note").fill("ethics vote 2026-114")
    form.get_by_label("I have read").check()
    form.get_by_role("button").click()
    node.page.get_by_text("Approved. Row ").wait_for(timeout=LOOKED_MS)


def answering(server: Visitor) -> bool:
    """Return true if the page that is followed shows a later round in which some have answered, and not all."""
    time.sleep(0.2)
    words = server.text()
    rounds = range(SEEN_FROM + 1, 100)
    return any(f"Round {n}: {done} of 3 nodes" in words for n in rounds for done in (1, 2))


def small(png: bytes) -> bytes:
    """Return a picture with few colours and few bytes."""
    drawn = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(drawn, "png", optimize=True)
    return drawn.getvalue()


def missing(reason: str) -> NoReturn:
    raise SystemExit(reason)


if __name__ == "__main__":
    draw(ROOT)
