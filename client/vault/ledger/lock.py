"""One process at a time with the ledger."""

import fcntl
import time
from io import TextIOWrapper
from pathlib import Path

from shared.errors import LedgerError

LOCK_POLL_S = 0.02


def lock_of(path: Path, *, patience_s: float = 0.0) -> TextIOWrapper:
    """Be the only process with this file until it is closed.

    Raises:
        LedgerError: another process is, and still is after `patience_s`.
    """
    file, give_up = path.open("w"), time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= give_up:
                file.close()
                raise LedgerError(f"Expected to be the only process with {path}, another one holds it.") from None
            time.sleep(LOCK_POLL_S)
        else:
            return file


def ledger_lock(ledger: Path, *, patience_s: float = 0.0) -> TextIOWrapper:
    """Be the only process with the ledger at this path.

    Raises:
        LedgerError: another process is, and still is after `patience_s`.
    """
    return lock_of(ledger.with_name(f"{ledger.name}.lock"), patience_s=patience_s)
