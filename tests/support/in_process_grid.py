"""Flower's Grid over handlers in this process: a federation without any worker."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from flwr.app import Message

from simulations.engines.grid import Submit, partition_of

Handle = Callable[[Message, int, int], Message]


def in_process(executor: Executor, handle: Handle) -> Submit:
    """Make a submit function for `LocalGrid` that runs a handler on an executor of this process."""

    def handled(messages: Sequence[Message], nodes: int) -> list[Message]:
        return [handle(message, partition_of(message), nodes) for message in messages]

    return lambda messages, nodes: executor.submit(handled, messages, nodes)
