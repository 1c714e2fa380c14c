"""Wait for work on a GPU, which continues after the call that began it has returned."""

from collections.abc import Callable

import torch


def until_done(work: Callable[[], None]) -> Callable[[], None]:
    """Wrap work so that it returns when a GPU, if there is one, is done with it."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run
