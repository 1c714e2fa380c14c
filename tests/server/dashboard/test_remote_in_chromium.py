"""The server's page in a real browser that shows an operator's certificate to the gateway."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from server.operator.remote_operators import revoke_certificates
from shared.study.declaration import Study
from tests.support.browser import Visitor, browser
from tests.support.remote_page import ROOT, RemotePage, remote_page
from tests.support.server_page import under_way

__all__ = ["browser"]


@pytest.fixture
def opened(tmp_path: Path, make_study: Callable[..., Study]) -> Iterator[RemotePage]:
    with remote_page(tmp_path) as page:
        under_way(page.server, make_study(federation={"rounds": 9}), 2)
        yield page


def test_an_operator_watches_a_round_from_elsewhere_until_the_certificate_is_revoked(
    opened: RemotePage, browser: Browser
) -> None:
    certificate = opened.operator("anna", may_act=True)
    shown = {"origin": opened.base, "certPath": certificate, "keyPath": certificate}
    # the federation's own authority is nobody's whom a browser trusts by itself
    visitor = Visitor(browser, opened.base, client_certificates=[shown], ignore_https_errors=True)
    assert visitor.open("/operator") == 200 and visitor.page.url == f"{opened.base}/operator/"
    visitor.page.get_by_text("Round 3: ").wait_for()
    west = opened.server.numbers["north-clinic"]
    opened.server.observer.asks(3, [west], again=[west], ask=2)
    visitor.page.get_by_text("Round 3, ask 2").wait_for()
    assert "You are anna until 20" in visitor.text() and "look and change" not in visitor.text()
    (cookie,) = visitor.cookies()
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (
        True,
        True,
        "Strict",
        "/operator/",
    )
    visitor.page.get_by_role("link", name="Nodes").click()
    visitor.page.get_by_label("Its name").fill("harbour")
    visitor.page.get_by_role("button", name="Invite").press("Enter")
    visitor.page.get_by_role("button", name="Write the invite").press("Enter")
    visitor.page.get_by_role("heading", name="harbour is invited").wait_for()
    visitor.page.get_by_role("link", name="Log").click()
    assert "harbour" in visitor.text() and "certificate" in visitor.text()
    visitor.expect_accessible()
    visitor.expect_clean()
    revoke_certificates(opened.server.store, "anna", ROOT)
    assert visitor.open("/operator/nodes") == 401
    visitor.close()
    stranger = Visitor(browser, opened.base, ignore_https_errors=True)
    assert stranger.open("/operator/") == 401
    stranger.close()
