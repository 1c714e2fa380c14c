"""The server's page in a real browser: a round watched live, a question before every action, and hostile names."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from server.dashboard.site import server_pages
from shared.study.declaration import Study
from tests.support.browser import PHONE, Visitor, browser
from tests.support.evaluations import evaluate
from tests.support.server_page import ServerInPieces, under_way
from tests.support.web import OpenSite, open_site

__all__ = ["browser"]
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>&\"'"
PAGES = ("/", "/nodes", "/runs", "/log")


@pytest.fixture
def server(tmp_path: Path, make_study: Callable[..., Study]) -> Iterator[ServerInPieces]:
    pieces = ServerInPieces(tmp_path / "federation", ("north", HOSTILE, "west", "east"))
    groups = {"column": "sex", "values": ["<b>women", "men"]}
    evaluation = {"epsilon": 4.0, "rounds": [1, 3, 5, 7], "subgroup": groups, "keep": "best", "stop_after": 3}
    study = make_study(
        study={"description": HOSTILE, "requester": HOSTILE}, evaluation=evaluation, federation={"rounds": 9}
    )
    under_way(pieces, study, 5)
    for number, right in ((1, 0.6), (3, 0.8), (5, 0.79)):
        evaluate(pieces, number, right, small="west")
    # no study that is read may have such a name; a run store may hold one
    named = study.model_copy(update={"study": study.study.model_copy(update={"name": HOSTILE})})
    pieces.store.create_run(named)
    yield pieces
    pieces.store.close()


@pytest.fixture
def site(server: ServerInPieces) -> Iterator[OpenSite]:
    shown = server.site()
    shown.watch.history(server.store.run(server.run))  # the first look takes the accounting's own seconds
    with open_site(shown.routes(), server_pages("fl.example.org")) as opened:
        yield opened


def test_a_round_is_watched_as_the_run_engine_writes_it(
    server: ServerInPieces, site: OpenSite, browser: Browser
) -> None:
    visitor = Visitor(browser, site.base)
    assert visitor.open(site.address) == 200 and visitor.page.url == f"{site.base}/"
    other = Visitor(browser, site.base)
    assert other.open(site.address) == 403 and other.open("/nodes") == 401, "an address opens once"
    other.close()
    visitor.page.get_by_text("Round 6: ").wait_for()
    west = server.numbers["west"]
    server.observer.asks(6, [west], again=[west], ask=2)
    visitor.page.get_by_text("Round 6, ask 2").wait_for()
    assert "Waits for" in visitor.text() and "west" in visitor.text()
    server.observer.answered(6, 4, 4, node=west, verdict="lost")
    visitor.page.get_by_text("it paid for this round and lost the update").wait_for()
    server.finish(6, {"accuracy": 0.91, "records": 412})
    visitor.page.get_by_text("6 of 9").first.wait_for()
    visitor.page.get_by_text("0.910").wait_for()
    for path in (*PAGES, f"/runs/{server.run}"):
        assert visitor.open(path) == 200
        visitor.expect_accessible()
    words = visitor.text()
    assert "that after round 3 is best, by accuracy over the 4 sites" in words and "subgroup <b>women" in words
    assert "not shown" in words and visitor.page.get_by_role("img", name="Private evaluations").is_visible()
    assert HOSTILE in words and visitor.open("/runs") == 200 and HOSTILE in visitor.text()
    visitor.page.get_by_role("link", name=HOSTILE).click()
    visitor.page.get_by_text("Expected the study of").first.wait_for()
    assert visitor.page.title().startswith("<script>")
    visitor.expect_clean()
    visitor.close()


def test_nothing_is_done_before_its_question_was_answered(
    server: ServerInPieces, site: OpenSite, browser: Browser
) -> None:
    visitor = Visitor(browser, site.base, java_script_enabled=False, viewport=PHONE, color_scheme="dark")
    visitor.open(site.address)
    visitor.open("/nodes")
    visitor.page.get_by_label("Its name").fill("new-clinic")
    visitor.page.get_by_role("button", name="Invite").press("Enter")
    visitor.page.get_by_role("heading", name="Invite new-clinic?").wait_for()
    assert "new-clinic" not in [node.name for node in server.store.nodes()]
    visitor.page.get_by_role("button", name="Write the invite").press("Enter")
    visitor.page.get_by_role("heading", name="new-clinic is invited").wait_for()
    visitor.open(f"/runs/{server.run}")
    visitor.page.get_by_role("link", name="Stop").click()
    assert "a round is paid for when it begins" in visitor.text()
    visitor.page.get_by_role("button", name="Stop it").click()
    visitor.page.get_by_role("heading", name="stops").wait_for()
    events = len(server.store.operator_events(most=9))
    visitor.page.reload()
    visitor.page.get_by_role("heading", name="stops").wait_for()
    assert len(server.store.operator_events(most=9)) == events, "loading it again does nothing"
    assert not server.store.run(server.run).wanted
    visitor.open("/log")
    assert "new-clinic" in visitor.text() and "127.0.0.1, session" in visitor.text()
    assert visitor.open("/confirm/export?run=r-none&folder=x") == 409
    visitor.complaints = [line for line in visitor.complaints if "409" not in line]
    visitor.open(f"/runs/{server.run}")
    assert "site north" in visitor.text(), "estimates are there without a script"
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    visitor.expect_clean()
    visitor.close()


def test_every_page_can_be_read_by_a_machine_that_reads_aloud(
    server: ServerInPieces, site: OpenSite, browser: Browser
) -> None:
    server.store.invite("invited-only", "hash-invited", datetime.now(UTC) + timedelta(days=7))
    visitor = Visitor(browser, site.base)
    visitor.open(site.address)
    questions = ["stop?run=" + server.run, "revoke?node=north", "invite?name=new-clinic", "resume?run=" + server.run]
    for path in (*PAGES, f"/runs/{server.run}", *(f"/confirm/{question}" for question in questions)):
        assert visitor.open(path) == 200, path
        visitor.expect_accessible()
    visitor.expect_clean()
    visitor.open(f"/confirm/{questions[2]}")
    visitor.page.get_by_role("button", name="Write the invite").click()
    visitor.page.get_by_role("heading", name="new-clinic is invited").wait_for()
    visitor.expect_accessible()
    assert visitor.open("/confirm/export?run=r-none&folder=x") == 409
    visitor.expect_accessible()
    visitor.page.get_by_role("button", name="Log out").click()
    visitor.page.get_by_text("You are logged out").wait_for()
    visitor.expect_accessible()
    visitor.close()


def tabs(visitor: Visitor, most: int = 40) -> list[str]:
    """Press Tab until the page has been gone through; returns what had the focus, which must be seen each time."""
    reached = list[str]()
    for _ in range(most):
        visitor.page.keyboard.press("Tab")
        focused = visitor.page.locator(":focus")
        if focused.count() == 0 or (reached and focused.evaluate("element => element.className") == "skip"):
            return reached
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid", reached
        name = "element => element.ariaLabel || element.innerText || element.name"
        reached.append(str(focused.evaluate(name)).strip())
    return reached


def test_the_keyboard_goes_through_each_page_in_the_order_in_which_it_is_read(
    server: ServerInPieces, site: OpenSite, browser: Browser
) -> None:
    visitor = Visitor(browser, site.base)
    visitor.open(site.address)
    top = ["Skip to the content", "Now", "Nodes", "Runs", "Log", "Log out"]
    run = server.store.run(server.run).study_name
    visitor.open("/nodes")
    out = [f"Shut {line.name} out" for line in server.site().watch.nodes()]
    assert tabs(visitor) == [*top, "Nodes", *out, "name", "days", "renew", "Invite …"]
    visitor.open("/runs")
    assert tabs(visitor) == [*top, "Runs", HOSTILE, run, "file", "Look at it …"]
    visitor.open(f"/runs/{server.run}")
    reports = [f"Report, {form}" for form in ("HTML", "PDF", "JSON")]
    tables = ["ε by node", "Estimates of the private evaluation", "Rounds, the newest first"]
    assert tabs(visitor) == [*top, "Stop …", *reports, *tables]
    visitor.open(f"/confirm/stop?run={server.run}")
    assert tabs(visitor) == [*top, "Stop it", "Leave it as it is"]
    visitor.open("/")
    assert tabs(visitor)[: len(top) + 1] == [*top, run]
    visitor.expect_clean()
    visitor.close()
