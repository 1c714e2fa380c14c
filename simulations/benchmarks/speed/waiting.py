"""Work on a GPU goes on after the call that began it has returned; to be timed, it has to be waited for."""

from collections.abc import Callable

import torch


def until_done(work: Callable[[], None]) -> Callable[[], None]:
    """The same work, returning when a GPU is done with it, if there is one."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run
