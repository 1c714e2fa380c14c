"""Types an operator's command in this process: what it prints, and the error that it ends with, without its start.

A process of its own loads for seconds what this one has loaded. Real ones are tested by what reads the guides aloud.
"""

import contextlib
import io
import sys
import warnings
from importlib import import_module
from unittest.mock import patch

from simulations.e2e.federation import COMMAND_TIMEOUT_S, Impatience


def command(package: str, *arguments: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run one of FedVault's commands; return what it prints, as `simulations.e2e.federation.command` does.

    Raises:
        Impatience: it failed.
    """
    del timeout_s
    printed, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", [f"fedvault-{package}", *arguments]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            import_module(f"{package}.cli.app").main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if check and code:
        raise Impatience(f"{package} {' '.join(arguments)} ended with {code}:\n{printed.getvalue()}{errors.getvalue()}")
    return printed.getvalue() + ("" if check else errors.getvalue())
