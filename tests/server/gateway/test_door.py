"""Who has to go where there is one connection too many."""

import pytest

from server.gateway.door import ConnectionLimits, Door
from server.gateway.process import connection_limits
from server.settings import ServerSettings

LIMITS = ConnectionLimits(in_all=8, strangers=4, per_address=3, per_node=2, per_s=1.0, burst=100)


def door_of(limits: ConnectionLimits = LIMITS) -> Door:
    return Door(limits, lambda: 0.0)


def ended(door: Door, *arrivals: str) -> list[str]:
    """Let connections arrive, named by address and number as in `a1`; return those that had to go."""
    outs = [door.arrives(name, name[0]) for name in arrivals]
    return [str(out[0]) for out in outs if out is not None]


def test_of_an_address_that_has_too_many_the_oldest_goes() -> None:
    assert ended(door_of(), "a1", "a2", "a3", "b1", "a4", "a5") == ["a1", "a2"]


@pytest.mark.guarantee("connections without a certificate, however many and idle, keep no node out.")
def test_a_single_connection_stays_while_one_address_takes_every_place() -> None:
    door = door_of()
    assert ended(door, "n1", "a1", "a2", "a3", "a4", "a5") == ["a1", "a2"]
    assert door.shows("n1", "north") is None
    assert ended(door, *(f"{address}1" for address in "bcdefghijk"))[-1] != "n1"
    assert len(door) == 5, "four strangers and one node"


@pytest.mark.guarantee(
    "a node has at most `per_node` connections, and an address at most `per_address` without a certificate."
)
def test_a_node_with_too_many_connections_loses_its_oldest_and_no_other_does() -> None:
    door = door_of()
    outs = []
    for name, key in (("a1", "north"), ("a2", "north"), ("a3", "south"), ("a4", "north")):
        assert door.arrives(name, "a") is None
        outs.append(door.shows(name, key))
    assert [out and out[0] for out in outs] == [None, None, None, "a1"]


def test_where_nodes_take_every_descriptor_the_new_one_goes() -> None:
    door = door_of(ConnectionLimits(in_all=2, strangers=1))
    for name in ("n1", "s1"):
        door.arrives(name, name[0])
        door.shows(name, name)
    assert door.arrives("x1", "x") == ("x1", "no connection is free")
    door.leaves("n1")
    assert door.arrives("x2", "x") is None


def test_an_address_that_shows_no_certificate_waits_and_a_node_does_not() -> None:
    now = [0.0]
    door = Door(ConnectionLimits(per_s=1.0, burst=3), lambda: now[0])
    for number in range(10):
        assert door.arrives(f"n{number}", "n") is None
        door.shows(f"n{number}", "north")
    assert ended(door, "a1", "a2", "a3", "a4", "b1") == ["a4"]
    now[0] = 1.0
    assert ended(door, "a5", "a6") == ["a6"]


def test_what_has_left_is_forgotten_and_may_leave_again() -> None:
    door = door_of()
    door.arrives("a1", "a")
    door.leaves("a1")
    door.leaves("a1")
    assert len(door) == 0 and door.shows("a1", "north") is None and len(door) == 0


@pytest.mark.parametrize(("descriptors", "strangers"), [(256, 64), (1024, 320), (65536, 512)])
def test_strangers_leave_half_of_the_descriptors_to_nodes(descriptors: int, strangers: int) -> None:
    limits = connection_limits(ServerSettings(hosts=("fl.example.org",)), descriptors)
    assert limits.strangers == strangers <= limits.in_all // 2 and limits.in_all < descriptors
