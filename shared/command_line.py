"""Run commands and print tables. An expected failure prints two lines and sets an exit code; it shows no traceback."""

import errno
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from shared.errors import AccessError, FedVaultError, RunError
from shared.printable import printable

VERBOSE = "FEDVAULT_VERBOSE"
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT}
"""What the system says of a disk that takes nothing more."""
OF_THE_PLACE = {errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
"""What it says of a place where nothing can be written."""


def run_command(command: Callable[[], object]) -> None:
    """Run a command; an expected failure becomes an error, a hint and an exit code.

    With `--verbose`, which sets the variable VERBOSE, the traceback is shown as well.
    """
    try:
        _named(command)
    except FedVaultError as error:
        if os.environ.get(VERBOSE):
            logging.exception("The failure in full:")
        print(f"error: {printable(str(error))}", file=sys.stderr)  # noqa: T201 - a command speaks
        if error.hint:
            print(f"hint:  {printable(error.hint)}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def _named(command: Callable[[], object]) -> None:
    """Run a command; what an operator can mend of the system's refusals becomes an error with a name."""
    try:
        command()
    except PermissionError as error:
        raise AccessError.of(error) from error
    except OSError as error:
        if error.errno not in OF_THE_DISK | OF_THE_PLACE:
            raise
        raise RunError(
            f"Expected to write {error.filename or 'a file'}, got: {error.strerror}.",
            hint="Free some space. What is finished is kept."
            if error.errno in OF_THE_DISK
            else "Name another place: a new folder, or one that can be written in.",
        ) from error


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table under the keys of the first row; cells are printed literally."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        Console().print("none")
        return
    table = Table(show_header=any(name.strip() for name in rows[0]), box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if value is None else printable(str(value))) for value in row.values()))
    Console().print(table)
