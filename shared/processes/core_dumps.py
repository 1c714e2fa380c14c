"""Keeps a process that sees records from leaving its memory behind when it crashes."""

import resource

NO_DUMP = 1
"""Of RLIMIT_CORE on Linux: too small for a file, and the one value at which a host's crash handler gets nothing."""


def forbid_core_dumps() -> None:
    """Have the system keep no memory of this process, or of those that it starts, when one crashes.

    Guarantee: a crash writes no memory of a node's processes to a file, and hands none to a handler of crashes.

    Where the hard limit is 0 already it stays: nothing is written then either, but a handler that heeds no limit may
    still be handed something.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = NO_DUMP if most == resource.RLIM_INFINITY or most >= NO_DUMP else most
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))
