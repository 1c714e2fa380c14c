"""The run store, on SQLite and on a real PostgreSQL."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from server.run_store.store import Store
from shared.errors import PolicyRefusal, SettingsError
from shared.protocol.messages import NO_POSITION, LedgerPosition
from shared.study.declaration import Study

Studies = Callable[..., Study]
SOON = datetime.now(UTC) + timedelta(days=1)


def record(number: int, **changes: Any) -> dict[str, Any]:
    plain = {"round": number, "outcome": "aggregated", "accepted": [1, 2]}
    return plain | changes


def test_what_is_written_is_there_for_the_next_process(url: str, store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study())
    store.record_round(run.id, record(1), {"accuracy": 0.5})
    store.record_round(run.id, record(1, outcome="skipped"), None)
    store.record_round(run.id, record(2), None)
    store.record_event("present", {"approved": 2}, run=run.id)
    with Store(url) as again:
        read = again.run(run.id[:10])
        assert (read.id, read.round, read.rounds, read.state) == (run.id, 2, 3, "queued")
        assert read.study == make_study()
        assert again.rounds(run.id) == [(record(1), {"accuracy": 0.5}), (record(2), None)], "the first record counts"
        *finished, event = again.events(run.id)
        assert [(it.kind, it.body["evaluation"]) for it in finished] == [("round", {"accuracy": 0.5}), ("round", None)]
        assert (event.kind, event.body) == ("present", {"approved": 2}) and again.events(run.id, after=event.id) == []


def test_one_run_at_a_time_the_oldest_first_and_a_running_one_before_all(store: Store, make_study: Studies) -> None:
    assert store.next_wanted() is None
    first, second = store.create_run(make_study()), store.create_run(make_study())
    wanted = store.next_wanted()
    assert wanted is not None and wanted.id == min((first, second), key=lambda run: (run.created, run.id)).id
    store.set_state(second.id, "running")
    assert [run.id for run in [store.next_wanted()] if run] == [second.id]
    store.want(second.id, wanted=False)
    assert store.stop_unwanted() == [second.id] and store.stop_unwanted() == []
    assert [run.id for run in [store.next_wanted()] if run] == [first.id]
    store.want(first.id, wanted=False)
    assert store.run(first.id).state == "stopped" and store.next_wanted() is None
    store.want(second.id, wanted=True)
    assert [run.id for run in [store.next_wanted()] if run] == [second.id]
    store.set_state(second.id, "failed", reason="why")
    assert store.run(second.id).reason == "why" and store.next_wanted() is None


def test_a_run_that_waits_is_still_open_and_may_be_stopped(store: Store, make_study: Studies) -> None:
    first, second = store.create_run(make_study()).id, store.create_run(make_study()).id
    store.set_state(first, "waiting", reason="waiting for approvals: 0 of 2")
    assert dict(store.open_runs()) == {first: "waiting", second: "queued"}
    store.want(first, wanted=False)
    assert (store.run(first).state, store.run(first).reason) == ("stopped", "")
    assert store.open_runs() == [(second, "queued")]
    store.set_state(first, "waiting")  # its process had not heard of it
    assert store.stop_unwanted() == [first]
    store.want(first, wanted=True)
    assert [event.kind for event in store.events(first)] == ["stopped", "resumed"]


def test_runs_are_named_by_an_unambiguous_beginning(store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study())
    store.create_run(make_study())
    assert store.run(run.id).id == run.id
    for wrong in ("r-", "nothing", "%", "_"):
        with pytest.raises(SettingsError, match="name of one run"):
            store.run(wrong)


def test_a_ledger_position_never_goes_back(store: Store) -> None:
    store.invite("ward", "hash", SOON)
    big = 2**64 - 1
    store.enrol("hash", "key", big, datetime.now(UTC))
    assert store.ledger_position(big) == NO_POSITION == store.ledger_position(7)
    store.record_answer({}, run="r-1", node=big, position=LedgerPosition(5, "a" * 64))
    store.record_answer({}, run="r-1", node=big, position=LedgerPosition(4, "b" * 64))
    assert store.ledger_position(big) == LedgerPosition(5, "a" * 64)
    store.renumber("ward", 9)
    assert store.ledger_position(9) == LedgerPosition(5, "a" * 64), (
        "it belongs to the node, not to Flower's number for it"
    )


def test_a_ledgers_height_may_have_twelve_digits_and_a_position_that_cannot_be_kept_ends_nothing(
    url: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.invite("ward", "hash", SOON)
    store.enrol("hash", "key", 7, datetime.now(UTC))
    store.record_answer({}, run="r-1", node=7, position=LedgerPosition(10**12 - 1, "a" * 64))
    assert store.ledger_position(7) == LedgerPosition(10**12 - 1, "a" * 64)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE nodes RENAME TO away"))
    store.record_answer({}, run="r-1", node=7, position=LedgerPosition(10**12 - 1, "b" * 64))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO nodes"))
    engine.dispose()
    assert "The ledger position of node 7 was not kept" in caplog.text
    assert store.ledger_position(7) == LedgerPosition(10**12 - 1, "a" * 64)


def test_a_node_is_known_by_every_number_that_flower_gave_it(store: Store) -> None:
    for name, number in (("ward", 1), ("lab", 2)):
        store.invite(name, name, SOON)
        store.enrol(name, name, number, datetime.now(UTC))
    store.renumber("ward", 2**64 - 1)
    assert store.names() == {1: "ward", 2: "lab", 2**64 - 1: "ward"}


def test_one_key_one_node(store: Store) -> None:
    for name in ("one", "two"):
        store.invite(name, name, SOON)
    store.enrol("one", "key", 1, datetime.now(UTC))
    with pytest.raises(PolicyRefusal):
        store.enrol("two", "key", 2, datetime.now(UTC))
    assert [(node.name, bool(node.enrolled)) for node in store.nodes()] == [("one", True), ("two", False)]


def test_of_many_that_use_one_invite_one_wins(url: str, store: Store) -> None:
    store.invite("ward", "hash", SOON)
    won, lost = list[int](), list[int]()

    def enrol(number: int) -> None:
        with Store(url) as own:
            try:
                own.enrol("hash", f"key {number}", number, datetime.now(UTC))
                won.append(number)
            except PolicyRefusal:
                lost.append(number)

    threads = [threading.Thread(target=enrol, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 3
    assert store.nodes()[0].public_key == f"key {won[0]}"


def test_several_processes_write_at_once(url: str, store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study()).id

    def write(first: int) -> None:
        with Store(url) as own:
            for number in range(first, first + 10):
                own.record_event("answered", {"n": number}, run=run)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event.body["n"] for event in store.events(run)) == list(range(30))


def test_rounds_and_events_of_an_older_version_are_read_by_todays_names(
    url: str, store: Store, make_study: Studies
) -> None:
    run = store.create_run(make_study()).id
    rejected = [{"node": 3, "reason": "norm"}]
    older = record(1, quarantined=rejected)
    store.record_round(run, older, None)
    store.record_event("stances", {"approved": [1, 2]}, run=run)
    with Store(url) as again:
        assert again.rounds(run) == [(record(1, rejected=rejected), None)]
        round_event, present = again.events(run)
        assert round_event.body == record(1, rejected=rejected, evaluation=None)
        assert (present.kind, present.body) == ("present", {"approved": [1, 2]})
