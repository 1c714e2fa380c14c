"""What is refused is counted, and told in few lines."""

import logging

import pytest

from server.gateway.refusals import AT_ONCE, REMEMBERED, SHOWN, Refusals, origin

A_MINUTE_OF_LOG = 8 * 1024


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = list(caplog.messages)
    caplog.clear()
    return told


@pytest.mark.guarantee("however much is refused, of however many, a minute of it is a bounded number of short lines.")
@pytest.mark.parametrize("addresses", [1, 50, REMEMBERED * 2])
def test_a_minute_of_refusals_is_a_few_lines(addresses: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refusals = Refusals()
    for number in range(REMEMBERED * 2):
        refusals.count(f"10.0.0.{number % addresses}" + "x" * 500, f"404 {'Not Found' * 500}")
    refusals.report()
    told = lines(caplog)
    assert len(told) <= AT_ONCE + 1 and sum(map(len, told)) < A_MINUTE_OF_LOG
    assert len(refusals._seen) == len(refusals._pending) == 0
    assert len(refusals._before) <= REMEMBERED + 1


def test_the_first_of_a_kind_is_told_at_once_and_the_rest_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for _ in range(3):
        refusals.count("10.0.0.9", "404 Not Found")
    refusals.count("north", "429 Too Many Requests")
    assert lines(caplog) == ["10.0.0.9: 404 Not Found", "north: 429 Too Many Requests"]
    refusals.report()
    assert lines(caplog) == ["2 more refused within 60 s: 10.0.0.9: 404 Not Found (2)"]
    refusals.count("10.0.0.9", "404 Not Found")
    assert lines(caplog) == [], "it goes on, and was told"
    refusals.report()
    assert lines(caplog) == ["1 more refused within 60 s: 10.0.0.9: 404 Not Found (1)"]
    refusals.report()
    refusals.report()
    assert lines(caplog) == [], "a quiet minute says nothing"
    refusals.count("10.0.0.9", "404 Not Found")
    assert lines(caplog) == ["10.0.0.9: 404 Not Found"]


def test_the_sum_names_the_most_frequent_and_counts_all(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for number in range(1, SHOWN + 3):
        for _ in range(number + 1):
            refusals.count(f"10.0.0.{number}", "401 Unauthorized")
    caplog.clear()
    refusals.report()
    (told,) = lines(caplog)
    assert told.startswith("55 more refused within 60 s: 10.0.0.10: 401 Unauthorized (10); ")
    assert told.endswith("10.0.0.3: 401 Unauthorized (3); more (3)")


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_a_network_of_addresses_counts_as_one(address: str, one: str) -> None:
    assert origin(address) == one
