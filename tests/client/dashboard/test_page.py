"""The operator's page in a real browser: a study is looked at, approved, rejected, and nothing else gets in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser
from starlette.routing import Route

from client.dashboard.app import Dashboard
from shared.protocol.messages import Peer
from shared.study.declaration import Study
from simulations.e2e.federation import wait_until
from tests.client.dashboard.conftest import CELL
from tests.support.browser import PHONE, Visitor, browser
from tests.support.operators import approve_study
from tests.support.operators_page import OperatorsPage, operators_page, show_study

__all__ = ["browser"]
Studies = Callable[..., Study]
TRIED_MS = 150_000.0
"""A process that loads PyTorch and a model, on a machine that does something else as well."""
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(config: Path) -> Iterator[OperatorsPage]:
    with operators_page(config) as opened:
        yield opened


@pytest.fixture
def visitor(page: OperatorsPage, browser: Browser) -> Iterator[Visitor]:
    """Somebody who came in with the address that was printed last."""
    someone = Visitor(browser, page.site.base)
    assert someone.open(page.site.address) == 200
    yield someone
    someone.expect_clean()
    someone.open("/")
    someone.page.get_by_role("button", name="Log out").click()
    someone.page.get_by_text("You are logged out").wait_for()
    someone.close()


def decisions(page: OperatorsPage, run: str) -> list[tuple[str, str, str]]:
    return [(one.answer, one.by, one.note) for one in page.node.ledger_state().decisions.get(run, ())]


def test_a_study_is_looked_at_and_approved(page: OperatorsPage, visitor: Visitor, study_of: Studies) -> None:
    show_study(page.config, study_of("letters"), "r-1")
    visitor.open("/")
    visitor.page.get_by_text("for your decision").wait_for()
    visitor.expect_accessible()
    visitor.page.get_by_role("link", name="Look at letters").click()
    visitor.page.get_by_role("heading", name="Your decision").wait_for()
    words = visitor.text()
    for part in ("a physician should read first", "What would leave this house", "bytes as float32", "2.700 of 3"):
        assert part in words
    assert "1.3 times as likely" in words and "the server sees this node's own update" in words
    assert "with it, epsilon 0.300 of 3 would be spent or earmarked" in words and CELL not in words
    visitor.expect_accessible()
    approve = visitor.page.get_by_role("form", name="Approve")
    approve.get_by_label("Your name").fill("Dr. Weber")
    approve.get_by_label("Note").fill("ethics vote 2026-114")
    approve.get_by_label("I have read").check()
    approve.get_by_role("button").click()
    visitor.page.get_by_text("Approved. Row ").wait_for()
    assert decisions(page, "r-1") == [("yes", "Dr. Weber", "ethics vote 2026-114")]
    visitor.open("/ledger")
    assert "by Dr. Weber, on the page, 127.0.0.1, session " in visitor.text() and "Verified just now" in visitor.text()
    visitor.expect_accessible()


def test_a_study_is_rejected_without_a_script_on_a_phone(
    page: OperatorsPage, browser: Browser, study_of: Studies
) -> None:
    show_study(page.config, study_of("second opinion"), "r-2")
    visitor = Visitor(browser, page.site.base, java_script_enabled=False, viewport=PHONE, color_scheme="dark")
    visitor.open(page.site.address)
    visitor.open("/study?run=r-2&dataset=ward")
    reject = visitor.page.get_by_role("form", name="Reject")
    reject.wait_for()  # the page loads itself again until it is there
    reject.get_by_label("Your name").fill("Dr. Weber")
    reject.get_by_role("button").click()
    wait_until(lambda: decisions(page, "r-2"), "the rejection is entered")
    assert decisions(page, "r-2") == [("no", "Dr. Weber", "")]
    visitor.open("/studies")
    assert "rejected" in visitor.text()
    visitor.expect_clean()
    visitor.page.get_by_role("button", name="Log out").click()
    visitor.close()


def test_markup_in_whatever_the_server_says_is_text(page: OperatorsPage, visitor: Visitor, study_of: Studies) -> None:
    study = study_of("markup", purpose=HOSTILE, requester=HOSTILE[:190], description=HOSTILE)
    show_study(page.config, study, f"r-{HOSTILE}"[:99], peers=(Peer(HOSTILE, "a" * 64),))
    visitor.open("/")
    visitor.page.get_by_role("link", name="Look at markup").click()
    visitor.page.get_by_role("heading", name="Your decision").wait_for()
    assert visitor.page.title().startswith("markup") and HOSTILE in visitor.text()
    visitor.open("/studies")
    assert f"r-{HOSTILE}"[:99] in visitor.text()


def test_what_changed_since_it_was_shown_is_not_approved(
    page: OperatorsPage, visitor: Visitor, study_of: Studies, config: Path
) -> None:
    show_study(page.config, study_of("moved"), "r-4")
    visitor.open("/study?run=r-4&dataset=ward")
    approve = visitor.page.get_by_role("form", name="Approve")
    approve.wait_for()
    data = config.parent / "ward.csv"
    before = data.read_text()
    data.write_text(before + "one more,yes\nand another,no\n")
    approve.get_by_label("Your name").fill("Dr. Weber")
    approve.get_by_label("I have read").check()
    approve.get_by_role("button").click()
    visitor.page.get_by_text("have changed since").wait_for()
    data.write_text(before)
    assert decisions(page, "r-4") == []
    visitor.page.get_by_role("link", name="Look at it again").click()
    visitor.page.get_by_role("heading", name="Your decision").wait_for()


def test_the_address_opens_once_and_another_browser_sees_nothing(page: OperatorsPage, browser: Browser) -> None:
    address = page.site.address
    visitor, stranger = (Visitor(browser, page.site.base) for _ in range(2))
    assert visitor.open(address) == 200
    assert stranger.open(address) == 403 and "was used before" in stranger.text()
    assert stranger.open("/study?run=r-1&dataset=ward") == 401 and "letters" not in stranger.text()
    assert visitor.open("/") == 200
    visitor.page.get_by_role("button", name="Log out").click()
    for one in (visitor, stranger):
        one.close()


def test_a_study_is_tried_and_nothing_of_it_stays(page: OperatorsPage, visitor: Visitor, study_of: Studies) -> None:
    show_study(page.config, study_of("tried"), "r-6")
    height = len(page.vault.ask("ledger")["shown"])
    visitor.open("/study?run=r-6&dataset=ward")
    visitor.page.get_by_role("link", name="Try gradients").click()
    visitor.page.get_by_role("button", name="Try it here").press("Enter")
    visitor.page.get_by_text("It is tried now").wait_for()
    visitor.page.get_by_text("What came of it").wait_for(timeout=TRIED_MS)
    assert "study: gradient probe, speed, memory: exact; " in visitor.text() and CELL not in visitor.text()
    visitor.expect_accessible()
    visitor.page.get_by_role("link", name="Back to the study").click()
    visitor.page.get_by_text("gradient probe, speed, memory: exact").wait_for()
    assert len(page.vault.ask("ledger")["shown"]) == height and decisions(page, "r-6") == []


def test_a_run_that_waits_is_resumed_by_whoever_has_looked(
    page: OperatorsPage, visitor: Visitor, study_of: Studies
) -> None:
    study = study_of("failed once")
    show_study(page.config, study, "r-7")
    approve_study(page.config, study, "r-7")
    with page.node.open_ledger() as ledger:
        ledger.reserve("r-7", 1)
        ledger.fail("r-7", 1)
    visitor.open("/")
    visitor.page.get_by_role("link", name="r-7", exact=True).click()
    visitor.page.get_by_text("This run waits for you").wait_for()
    visitor.expect_accessible()
    resume = visitor.page.get_by_role("form", name="Resume")
    resume.get_by_label("Your name").fill("Dr. Weber")
    resume.get_by_label("the cause is mended").check()
    resume.get_by_role("button", name="Let it continue").press("Enter")
    visitor.page.get_by_text("The operator (Dr. Weber, on the page, 127.0.0.1, session ").wait_for()
    assert "looked at rounds 1 of r-7" in visitor.text() and "This run waits" not in visitor.text()
    assert page.node.ledger_state().run("r-7").waiting_in_words == ""


def test_every_page_can_be_read_by_a_machine_that_reads_aloud(
    page: OperatorsPage, browser: Browser, study_of: Studies
) -> None:
    show_study(page.config, study_of("read aloud"), "r-8")
    visitor = Visitor(browser, page.site.base)
    visitor.open(page.site.address)
    for path in ("/", "/studies", "/ledger", "/trial?run=r-8&dataset=ward", "/study?run=nowhere"):
        assert visitor.open(path) == (503 if "nowhere" in path else 200), path
        visitor.expect_accessible()
    visitor.page.get_by_role("button", name="Log out").click()
    visitor.page.get_by_text("You are logged out").wait_for()
    visitor.expect_accessible()
    visitor.close()


@pytest.mark.guarantee("a page that was started without leave to decide has no address that decides.")
def test_a_page_that_only_shows_cannot_decide(config: Path, study_of: Studies) -> None:
    show_study(config, study_of("shown only"), "r-5")
    with operators_page(config, allow_decisions=False) as shown, httpx.Client(base_url=shown.site.base) as http:
        http.get(shown.site.address)
        wait_until(lambda: "This page only shows" in http.get("/study?run=r-5&dataset=ward").text, "it was looked at")
        routes = Dashboard(shown.vault, "north", allow_decisions=False).routes
        assert all(isinstance(route, Route) and route.methods == {"GET", "HEAD"} for route in routes)
        token = http.get("/").text.split('name="token" value="')[1].split('"')[0]
        form = {"token": token, "run": "r-5", "dataset": "ward", "by": "Mallory"}
        for path in ("/approve", "/reject"):
            assert http.post(path, data=form, headers={"origin": shown.site.base}).status_code == 403
        assert decisions(shown, "r-5") == []
        for headers, status in (({"host": "rebound.example"}, 421), ({"origin": "http://evil.example"}, 403)):
            assert http.get("/", headers=headers).status_code == status
