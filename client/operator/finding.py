"""The result of one check of `doctor`."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import FedVaultError

OUT_OF_MEMORY = (
    "End other programs on this device, or lower [performance] micro_batch_tokens: the result stays the same."
)


@dataclass(frozen=True)
class Finding:
    """One check."""

    check: str
    ok: bool
    saw: str
    todo: str = ""
    """What to do if it is not ok."""


def failed(check: str, error: FedVaultError) -> Finding:
    """Turn an expected failure into a finding."""
    return Finding(check, False, str(error), error.hint or "Mend what the message names.")


def tried(check: str, look: Callable[[], str]) -> Finding:
    """Look, and turn whatever goes wrong into a finding."""
    try:
        return Finding(check, True, look())
    except FedVaultError as error:
        return failed(check, error)
    except MemoryError:
        return Finding(check, False, "out of memory", OUT_OF_MEMORY)
    except (RuntimeError, OSError) as error:
        # a library's or the system's own words, of which the first line says what
        saw = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding(check, False, saw, OUT_OF_MEMORY if "out of memory" in saw else "Mend what the message names.")
