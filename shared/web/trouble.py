"""Sentences of a page about what went wrong, whatever did: a person is never shown a bare number."""

import logging
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from shared.errors import AccessError, FedVaultError, RunError

log = logging.getLogger(__name__)
MENDED, OURS = 409, 500
"""Status of an answer to what an operator can mend here, and to anything else."""
Shown = Callable[[Request], Response]
Explain = Callable[[Request, FedVaultError, int], Response]


def explained(show: Shown, explain: Explain, mended: int = MENDED) -> Shown:
    """Return a page that says what went wrong and what to do about it.

    Guarantee: whatever goes wrong behind a page is a sentence on it; what the system refused names the file and why.

    Args:
        show: the page.
        explain: shows an error with a status, in words.
        mended: status of what an operator can mend.
    """

    def shown(request: Request) -> Response:
        try:
            return show(request)
        except FedVaultError as error:
            return explain(request, error, mended)
        except Exception as error:
            log.exception("A page could not be shown: %s", request.url.path)
            return explain(request, in_words(error), OURS)

    return shown


def in_words(error: Exception) -> FedVaultError:
    """Return an error that nobody expected as one with a sentence and a hint."""
    if isinstance(error, PermissionError):
        return AccessError.of(error)
    if isinstance(error, OSError):
        return RunError(f"Expected a file to be read or written, got: {_of_system(error)}.", hint="Mend it; try again.")
    if "os error" in str(error):  # how libraries in Rust pass on what the system said
        return RunError(f"Expected a file to be read or written, got: {error}.", hint="Mend it; try again.")
    return RunError(
        f"Expected no fault of the program, got {type(error).__name__}.",
        hint="The terminal where the page was started says more.",
    )


def _of_system(error: OSError) -> str:
    # several files that could not be copied come as one error with a list
    first = error.args[0] if error.args and not error.strerror else None
    if isinstance(first, list) and first:
        return str(first[0][-1])
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
