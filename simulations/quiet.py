"""Keep libraries quiet in a process that simulates: they report nothing, install nothing and draw no bars."""

import logging
import os

from shared.environment import QUIET

ENVIRONMENT = QUIET | {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def quiet_libraries() -> None:
    """Show only errors of the libraries, which are imported first because they then set levels of their own.

    A variable that is set already stays as it is.
    """
    os.environ |= ENVIRONMENT | os.environ
    import flwr.serverapp  # noqa: F401
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("flwr").setLevel(logging.ERROR)
