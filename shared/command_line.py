"""Run commands and print tables. An expected failure prints two lines and sets an exit code; it shows no traceback."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from shared.errors import FedVaultError
from shared.printable import printable

VERBOSE = "FEDVAULT_VERBOSE"


def run_command(command: Callable[[], object]) -> None:
    """Run a command; an expected failure becomes an error, a hint and an exit code.

    With `--verbose`, which sets the variable VERBOSE, the traceback is shown as well.
    """
    try:
        command()
    except FedVaultError as error:
        if os.environ.get(VERBOSE):
            logging.exception("The failure in full:")
        print(f"error: {printable(str(error))}", file=sys.stderr)  # noqa: T201 - a command speaks
        if error.hint:
            print(f"hint:  {printable(error.hint)}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


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
