"""What every command does with an expected failure: two lines and an exit code, never a traceback."""

import logging
import os
import sys
from collections.abc import Callable

from shared.errors import FedVaultError

VERBOSE = "FEDVAULT_VERBOSE"


def run_command(command: Callable[[], object]) -> None:
    """Run a command; with `--verbose`, which sets VERBOSE, the traceback is shown as well."""
    try:
        command()
    except FedVaultError as error:
        if os.environ.get(VERBOSE):
            logging.exception("The failure in full:")
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command speaks
        if error.hint:
            print(f"hint:  {error.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
