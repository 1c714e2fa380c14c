"""Whatever goes wrong behind a page is a sentence on it."""

import errno
import shutil
from typing import NoReturn

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.errors import FedVaultError, SettingsError
from shared.web.rendering import Pages, Site
from shared.web.trouble import explained, in_words
from tests.support.web import open_site

FULL = OSError(errno.ENOSPC, "No space left on device", "/exports/r-1/model.safetensors")
CASES: dict[str, tuple[Exception, str]] = {
    "a full disk": (FULL, "No space left on device (/exports/r-1/model.safetensors)"),
    "a folder of another user": (PermissionError(errno.EACCES, "Permission denied", "/exports"), "/exports to be open"),
    "some of many files": (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "No space left"),
    "an error without a number": (OSError("unexpected end"), "unexpected end"),
    "a full disk, by way of safetensors": (
        ValueError("I/O error: No space left on device (os error 28)"),
        "No space left on device",
    ),
    "a fault of ours": (ZeroDivisionError("/secret"), "got ZeroDivisionError"),
}


@pytest.mark.guarantee(
    "whatever goes wrong behind a page is a sentence on it; what the system refused names the file and why."
)
@pytest.mark.parametrize("case", CASES)
def test_what_nobody_expected_is_a_sentence(case: str) -> None:
    error, words = CASES[case]
    said = in_words(error)
    assert words in str(said) and said.hint and "/secret" not in str(said)


def test_a_page_that_fails_says_so_with_a_status() -> None:
    def fails(error: Exception) -> NoReturn:
        raise error

    def explain(request: Request, error: FedVaultError, status: int) -> Response:
        return PlainTextResponse(str(error), status)

    routes = [
        Route("/", explained(lambda _request: fails(SettingsError("Expected a name.")), explain)),
        Route("/full", explained(lambda _request: fails(FULL), explain)),
    ]
    with open_site(routes, Pages(None, Site("node", "n"))) as site, httpx.Client(base_url=site.base) as http:
        http.get(site.address)
        first, second = http.get("/"), http.get("/full")
    assert (first.status_code, first.text) == (409, "Expected a name.")
    assert second.status_code == 500 and "No space left" in second.text
