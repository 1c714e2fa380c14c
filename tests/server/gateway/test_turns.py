"""Places are shared node by node."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from server.gateway.turns import Busy, Turns

FEW = 5


async def settled() -> None:
    for _ in range(FEW):
        await asyncio.sleep(0)


class Asking:
    """Requests of nodes, each of which holds its place until it is told to end."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._ends = turns, dict[str, asyncio.Event]()
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """Ask once for each name; the node is its first letter."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._hold(name))
        await settled()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settled()

    async def _hold(self, name: str) -> None:
        async with self._turns.place(name[0]):
            self.served.append(name)
            self._ends[name] = asyncio.Event()
            await self._ends[name].wait()


def played(story: Callable[[Asking], Awaitable[None]], *, at_once: int, each: int, waiting: int = 10) -> list[str]:
    async def run() -> list[str]:
        asking = Asking(Turns(at_once=at_once, each=each, waiting=waiting))
        await story(asking)
        for task in asking.tasks.values():
            task.cancel()
        await asyncio.gather(*asking.tasks.values(), return_exceptions=True)
        return asking.served

    return asyncio.run(run())


@pytest.mark.guarantee("a node's requests wait for its own, never for the requests that another node has piled up.")
def test_whoever_waits_is_served_node_by_node() -> None:
    async def story(asking: Asking) -> None:
        await asking.ask("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        for name in ("a1", "a2", "b1", "c1", "a3", "b2"):
            await asking.end(name)

    assert played(story, at_once=1, each=1) == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


def test_a_node_has_no_more_places_than_its_own_while_others_are_free() -> None:
    async def story(asking: Asking) -> None:
        await asking.ask("a1", "a2", "a3", "b1")
        assert asking.served == ["a1", "a2", "b1"]
        await asking.end("b1")
        assert asking.served == ["a1", "a2", "b1"]
        await asking.end("a1")

    assert played(story, at_once=10, each=2) == ["a1", "a2", "b1", "a3"]


def test_a_node_with_too_many_waiting_is_told_so_and_another_is_not() -> None:
    async def story(asking: Asking) -> None:
        await asking.ask("a1", "a2", "a3", "b1")
        with pytest.raises(Busy):
            await asking.tasks["a3"]
        assert not asking.tasks["a2"].done() and not asking.tasks["b1"].done()

    assert played(story, at_once=1, each=1, waiting=1) == ["a1"]


@pytest.mark.parametrize("while_it_waits", [True, False])
def test_a_cancelled_request_leaves_no_place_taken(while_it_waits: bool) -> None:
    async def story(asking: Asking) -> None:
        await asking.ask("a1", "b1", "c1")
        if while_it_waits:
            asking.tasks["b1"].cancel()
            await settled()
            await asking.end("a1")
        else:  # its turn has come, and it does not know yet
            asking._ends["a1"].set()
            await asyncio.sleep(0)
            asking.tasks["b1"].cancel()
            await settled()
        with contextlib.suppress(asyncio.CancelledError):
            await asking.tasks["b1"]

    assert played(story, at_once=1, each=1) == ["a1", "c1"]
