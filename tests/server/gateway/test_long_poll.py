"""A node waits at the gateway until something was stored for it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from server.gateway.long_poll import KNOWN_FOR_S, NOTHING, SOMETHING, WAITS_AT_ONCE, LongPoll, PresentNodes
from server.gateway.refusals import Refusals
from server.wake_pipe import open_pipe, pipe_of, tell
from shared.errors import RunError
from shared.protocol.long_poll import NODE_HEADER, PRESENT_HEADER, WAIT_PATH

Ask = Callable[[int], Awaitable[int]]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    descriptor = open_pipe(pipe_of(tmp_path))
    yield descriptor
    os.close(descriptor)


def number_of(request: Request) -> int | None:
    return int(request.headers["node"]) or None


def run(waiting: LongPoll, script: Callable[[Ask], Awaitable[None]]) -> None:
    async def play() -> None:
        transport = httpx.ASGITransport(Starlette(routes=[waiting.route()]))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

            async def ask(node: int) -> int:
                return (await client.get(WAIT_PATH, headers={"node": str(node)})).status_code

            await script(ask)

    asyncio.run(play())


def test_a_wait_ends_when_something_was_stored_for_that_node_and_for_no_other(pipe: int, tmp_path: Path) -> None:
    async def script(ask: Ask) -> None:
        assert [await ask(7), await ask(8)] == [SOMETHING, SOMETHING], "whatever was stored before this gateway ran"
        seven, eight = asyncio.create_task(ask(7)), asyncio.create_task(ask(8))
        await asyncio.sleep(0.05)
        assert not seven.done()
        tell(pipe_of(tmp_path), [7])
        assert await seven == SOMETHING and not eight.done()
        assert await eight == NOTHING

    run(LongPoll(pipe, number_of, lambda: 0.0, longest_s=0.3), script)


def test_what_was_stored_while_a_node_did_not_wait_ends_its_next_wait_at_once(pipe: int, tmp_path: Path) -> None:
    async def script(ask: Ask) -> None:
        await ask(7)
        tell(pipe_of(tmp_path), [7, 7])
        await asyncio.sleep(0.05)
        assert [await ask(7), await ask(7)] == [SOMETHING, NOTHING]

    run(LongPoll(pipe, number_of, lambda: 0.0, longest_s=0.1), script)


def test_a_node_waits_once_and_only_so_often_and_a_stranger_never(pipe: int) -> None:
    async def script(ask: Ask) -> None:
        assert await ask(0) == 401
        await ask(7)
        first = asyncio.create_task(ask(7))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(ask(7))
        assert await first == NOTHING and not second.done()
        second.cancel()
        answers = [asyncio.create_task(ask(7)) for _ in range(WAITS_AT_ONCE)]
        assert 429 in await asyncio.gather(*answers)
        assert await ask(8) == SOMETHING, "another node does not pay for that"

    run(LongPoll(pipe, number_of, lambda: 0.0, longest_s=0.1), script)


def test_a_wait_that_is_refused_is_counted(pipe: int) -> None:
    refusals = Refusals()
    waiting = LongPoll(pipe, number_of, lambda: 0.0, refusals=refusals)

    async def script(ask: Ask) -> None:
        assert await ask(0) == 401
        waiting.tell([7])
        for _ in range(WAITS_AT_ONCE):
            waiting.tell([7])
            assert await ask(7) == SOMETHING
        assert [await ask(7) for _ in range(3)] == [429] * 3

    run(waiting, script)
    assert refusals.summed_up() == "2 more refused within 60 s: node 7: 429 at waiting (2)", "the first were logged"


class Superlink:
    """Knows some nodes, unless it is away."""

    def __init__(self, *known: int) -> None:
        self.known, self.told, self.away = set(known), list[set[int]](), False

    def __call__(self, nodes: Collection[int]) -> set[int]:
        if self.away:
            raise RunError("away")
        self.told.append(set(nodes))
        return self.known & set(nodes)


@pytest.mark.guarantee(
    "a node hears that it need send no heartbeat only if the SuperLink took it for present half a minute ago."
)
def test_the_superlink_hears_of_many_at_once_and_its_word_is_good_for_half_a_minute() -> None:
    now, superlink = [100.0], Superlink(7, 8)
    present = PresentNodes(lambda: now[0])
    for node in (7, 8, 9, 7):
        present.note(node)
    superlink.away = True
    with pytest.raises(RunError):
        present.tell(superlink)
    assert not present.is_known(7)
    superlink.away = False
    present.tell(superlink)
    present.tell(superlink)
    assert superlink.told == [{7, 8, 9}] and [present.is_known(node) for node in (7, 8, 9)] == [True, True, False]
    now[0] += KNOWN_FOR_S + 1
    assert not present.is_known(7)


def test_a_node_that_leaves_is_not_called_present_again() -> None:
    superlink, present = Superlink(7), PresentNodes(lambda: 0.0)
    present.note(7)
    present.tell(superlink)
    present.note(7)
    present.forget(7)
    present.tell(superlink)
    assert superlink.told == [{7}] and not present.is_known(7)


def test_a_wait_says_that_the_node_is_there_under_the_number_that_it_has_now(pipe: int) -> None:
    superlink, present = Superlink(7), PresentNodes(lambda: 0.0)
    waiting = LongPoll(pipe, number_of, lambda: 0.0, longest_s=0.01, present=present)

    async def play() -> list[str | None]:
        transport = httpx.ASGITransport(Starlette(routes=[waiting.route()]))
        answers = []
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            for number in ("", "6", "7", "7"):
                headers = {"node": "7"} | ({NODE_HEADER: number} if number else {})
                answers.append((await client.get(WAIT_PATH, headers=headers)).headers.get(PRESENT_HEADER))
                present.tell(superlink)
        return answers

    assert asyncio.run(play()) == [None, None, None, "yes"] and superlink.told == [{7}, {7}]
