"""The board in a real browser: filtered, read by who cannot see it, with its reports, and without a script."""

from pathlib import Path

from playwright.sync_api import Browser

from simulations.board.export import board_pages, export_board
from simulations.board.runs import read_runs
from simulations.board.site import BoardSite
from simulations.results.report import write_report
from tests.support.browser import PHONE, Visitor, browser
from tests.support.results import result, write_run
from tests.support.web import open_site

__all__ = ["browser"]
HEIGHTS = "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
HOSTILE = "<script>document.title='taken'</script>"


def test_a_board_is_filtered_and_leads_to_reports(tmp_path: Path, browser: Browser) -> None:
    for epsilon, seed in [(1.0, 1), (1.0, 2), (3.0, 1), (3.0, 2)]:
        write_run(
            tmp_path / f"{epsilon:g}-{seed}",
            result(0.6 + epsilon / 20 + seed / 50, epsilon=epsilon, seed=seed, name=HOSTILE),
        )
    pages = board_pages("runs")
    with open_site(BoardSite([tmp_path], {}, pages).routes(), pages) as site:
        visitor = Visitor(browser, site.base)
        assert visitor.open(site.address) == 200
        assert "4 runs of 2 settings" in visitor.text()
        visitor.page.locator("summary").first.click()
        assert "majority class" in visitor.text()
        visitor.expect_accessible()
        visitor.page.get_by_label("privacy.epsilon").select_option("3.0")
        visitor.page.get_by_role("button", name="Show these").click()
        visitor.page.get_by_text("2 runs of 1 setting").wait_for()
        visitor.page.get_by_role("link", name="seed 2").click()
        visitor.page.get_by_role("heading", name=HOSTILE).wait_for()
        visitor.expect_accessible()
        assert visitor.page.locator(".card").first.evaluate("card => getComputedStyle(card).borderStyle") == "solid"
        assert visitor.open("/report?run=none") == 404 and visitor.open("/?privacy.epsilon=9") == 200
        assert "No run has all of these." in visitor.text()
        visitor.expect_accessible()
        visitor.complaints = [line for line in visitor.complaints if "404" not in line]
        visitor.expect_clean()
        visitor.close()
    visitor = Visitor(browser, "file://", java_script_enabled=False, viewport=PHONE, color_scheme="dark")
    visitor.open(str(export_board(read := read_runs([tmp_path]), read.runs, tmp_path / "board.html")))
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert HOSTILE not in visitor.page.title()
    write_report(result(0.7, name=HOSTILE), tmp_path / "report.html")
    visitor.open(str(tmp_path / "report.html"))
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    visitor.expect_clean()
    visitor.close()
    visitor = Visitor(browser, "file://", viewport=PHONE)
    visitor.open(str(tmp_path / "report.html"))
    heights = visitor.page.evaluate(HEIGHTS)
    assert heights and min(heights) > 9, "labels of drawings can be read on a phone"
    visitor.expect_accessible()
    visitor.close()
