"""One run at a time, and whoever waits for people steps aside for whoever can run."""

from hypothesis import given
from hypothesis import strategies as st

from server.run_store.values import RunState
from server.runs.queue import LONGEST_TURN_S, TURN_S, RunQueue

STATES: list[RunState] = ["queued", "running", "waiting"]


def test_a_run_that_waits_alone_keeps_its_turn() -> None:
    queue = RunQueue()
    assert {queue.next([("a", "waiting")], now * TURN_S) for now in range(10)} == {"a"}


def test_a_run_that_waits_for_people_steps_aside_for_the_next_and_comes_back_after_it() -> None:
    queue = RunQueue()
    assert queue.next([("a", "queued"), ("b", "queued")], 0.0) == "a"
    assert queue.next([("a", "waiting"), ("b", "queued")], 10.0) == "a", "it has a moment to ask everybody"
    assert queue.next([("a", "waiting"), ("b", "queued")], 10.0 + TURN_S) == "b"
    assert queue.next([("a", "waiting"), ("b", "running")], 5000.0) == "b", "rounds under way are not interrupted"
    assert queue.next([("a", "waiting")], 9000.0) == "a"


def test_a_process_that_is_slow_to_start_is_not_passed_over() -> None:
    queue = RunQueue()
    queue.next([("a", "queued"), ("b", "queued")], 0.0)
    assert queue.next([("a", "running"), ("b", "queued")], 50 * TURN_S) == "a"
    assert queue.next([("a", "waiting"), ("b", "queued")], 51 * TURN_S) == "a"


def test_a_run_that_is_under_way_when_the_server_starts_comes_first() -> None:
    assert RunQueue().next([("a", "waiting"), ("b", "running"), ("c", "queued")], 0.0) == "b"


def test_turns_in_vain_grow_longer_and_a_new_run_has_its_turn_within_a_minute() -> None:
    queue, now, turns = RunQueue(), 0.0, list[float]()
    waiting: list[tuple[str, RunState]] = [("a", "waiting"), ("b", "waiting")]
    last = queue.next(waiting, now)
    began = now
    while len(turns) < 12:
        now += 1.0
        if (chosen := queue.next(waiting, now)) != last:
            turns.append(now - began)
            last, began = chosen, now
    assert turns == sorted(turns) and turns[0] <= TURN_S + 1 and turns[-1] == LONGEST_TURN_S + 1
    waited = next(s for s in range(1, 1000) if queue.next([*waiting, ("c", "queued")], now + s) == "c")
    assert waited <= TURN_S + 1


@given(st.lists(st.lists(st.sampled_from(STATES), min_size=1, max_size=4), min_size=1, max_size=8))
def test_whoever_can_run_is_never_kept_waiting_by_whoever_cannot(history: list[list[RunState]]) -> None:
    queue, now = RunQueue(), 0.0
    for states in history:
        runs = list(zip("abcd", states, strict=False))
        chosen, now = queue.next(runs, now), now + LONGEST_TURN_S
        assert chosen in dict(runs)
        if "running" in states:
            assert dict(runs)[chosen] == "running", "one that is under way, and no other"
    runs = [("a", "waiting"), ("b", "waiting"), ("c", "queued")]
    seen = set[str | None]()
    for _ in range(10):
        seen.add(queue.next(runs, now))
        now += LONGEST_TURN_S + 1
        queue.next(runs, now)
        now += LONGEST_TURN_S + 1
    assert "c" in seen
