"""The run store and Flower's database agree again, whatever fell between two writes."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.certificate_authority import create
from server.gateway.enrolment import Enrolment, invite, revoke
from server.gateway.registration import ensure_registered, synchronise_nodes
from server.run_store.store import Store
from server.run_store.values import NO_NUMBER
from server.settings import Home
from shared.errors import RunError
from tests.server.gateway.test_enrolment import enrol, request_of
from tests.support.flower_control import Flower
from tests.support.killed_between import Killed, killed_after

SOON = datetime.now(UTC) + timedelta(days=1)
Action = Callable[[Store, Home, Flower, Path], None]
WRITES = [(Store, ("invite", "enrol", "renumber", "revoke")), (Flower, ("register", "unregister"))]


def federation(folder: Path) -> Home:
    home = Home(folder / "server")
    create(home.keys, "test federation")
    home.config.write_text('hosts = ["fed.example.org"]\n')
    return home


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(federation(tmp_path).database()) as opened:
        yield opened


def enrolled(store: Store, flower: Any, *names: str) -> None:
    for name in names:
        store.invite(name, name, SOON)
        ensure_registered(store, flower, store.enrol(name, f"key of {name}", NO_NUMBER, datetime.now(UTC)))


def in_step(store: Store, flower: Flower) -> bool:
    """True if Flower knows every node that is enrolled by its number, and nobody who was revoked."""
    keys = {number: key for number, key in flower.keys.items() if number not in flower.shut_out}
    return keys == {node.node_id: node.public_key for node in store.nodes() if node.status == "enrolled"}


def invited(store: Store, home: Home, flower: Flower, folder: Path) -> None:
    (folder / "token").write_text(invite(store, home, "ward").token)


def joins(store: Store, home: Home, flower: Any, folder: Path) -> None:
    answer = enrol(Enrolment(store, home, flower), (folder / "token").read_text(), request_of(folder))
    assert answer.status_code == 200 and answer.json()["node_id"] == str(store.nodes()[0].node_id)


def three_are_in_a_database_that_is_gone(store: Store, home: Home, flower: Flower, folder: Path) -> None:
    enrolled(store, flower, "north", "west", "east")
    flower.start_afresh()


def synchronises(store: Store, home: Home, flower: Any, folder: Path) -> None:
    assert not synchronise_nodes(store, flower).troubles


def two_are_in(store: Store, home: Home, flower: Flower, folder: Path) -> None:
    enrolled(store, flower, "north", "west")


def shuts_one_out(store: Store, home: Home, flower: Any, folder: Path) -> None:
    revoke(store, flower, "north")
    synchronises(store, home, flower, folder)


@pytest.mark.guarantee(
    "a crash between Flower's database and the run store leaves nothing that the next call does not finish."
)
@pytest.mark.parametrize(
    ("before", "action", "writes"),
    [
        (invited, joins, 3),
        (three_are_in_a_database_that_is_gone, synchronises, 6),
        (two_are_in, shuts_one_out, 2),
    ],
)
def test_a_kill_between_any_two_writes_is_made_up_for_by_the_next_try(
    before: Action, action: Action, writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for done in range(writes + 1):
        folder, flower = tmp_path / str(done), Flower()
        home = federation(folder)
        with Store(home.database()) as store:
            before(store, home, flower, folder)
            with killed_after(done, WRITES, monkeypatch) as killed:
                with suppress(Killed):
                    action(store, home, flower, folder)
                assert killed() == (done < writes), "every write was the last one once"
            action(store, home, flower, folder)
            assert in_step(store, flower)


@pytest.mark.guarantee("trouble with one node keeps no other node out.")
def test_trouble_with_one_node_is_named_and_keeps_no_other_out(store: Store) -> None:
    flower: Any = Flower()
    enrolled(store, flower, "north", "west", "east")
    flower.start_afresh()
    flower.keys[77] = "key of north"
    flower.shut_out.add(77)  # Flower never takes this key again
    present, troubles = synchronise_nodes(store, flower)
    assert list(troubles) == ["north"] and "already in use" in troubles["north"] and 77 not in present
    assert sorted(flower.keys.values()) == ["key of east", "key of north", "key of west"]
    flower.away = True
    with pytest.raises(RunError, match="away"):
        synchronise_nodes(store, flower)


def test_of_two_that_register_a_node_at_once_both_find_it(store: Store) -> None:
    class Slow(Flower):
        def register(self, public_key_pem: str) -> int:
            super().register(public_key_pem)  # the other one's
            return super().register(public_key_pem)

    flower: Any = Slow()
    enrolled(store, flower, "north")
    assert store.nodes()[0].node_id == 1 and len(flower.keys) == 1
