"""Who missed two rounds in a row is last in line: for one round, then for twice as many after each further miss."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rounds.attendance import LONGEST_BREAK, last_in_line, sits_out_until
from server.rounds.cohort import draw_cohort


def record(number: int, *, answered: str = "", missing: str = "") -> dict[str, Any]:
    gone = [ord(name) for name in missing]
    return {"round": number, "asked": sorted([*gone, *map(ord, answered)]), "missing": gone}


def who(nodes: frozenset[int] | list[int]) -> str:
    return "".join(sorted(map(chr, nodes)))


def test_two_misses_in_a_row_and_no_fewer() -> None:
    records = [record(1, answered="ab", missing="c"), record(2, answered="abc"), record(3, answered="ab", missing="c")]
    assert [who(last_in_line(records[:done], done + 1)) for done in range(4)] == [""] * 4
    records.append(record(4, answered="a", missing="bc"))
    assert who(last_in_line(records, 5)) == "c" and who(last_in_line(records, 6)) == "", "it sits out one round"


def test_a_round_that_did_not_ask_it_neither_forgives_nor_counts() -> None:
    records = [record(1, answered="a", missing="b"), record(2, answered="a"), record(3, answered="a", missing="b")]
    assert sits_out_until(records) == {ord("b"): 4}


def test_who_is_too_slow_for_ever_pays_for_few_rounds() -> None:
    records, asked = list[dict[str, Any]](), list[int]()
    for number in range(1, 101):
        late = ord("z") in last_in_line(records, number)
        records.append(record(number, answered="a", missing="" if late else "z"))
        asked += [] if late else [number]
    assert asked == [1, 2, 4, 7, 12, 21, 38, 55, 72, 89] and asked[-1] - asked[-2] - 1 == LONGEST_BREAK


def test_an_answer_in_time_ends_it() -> None:
    records = [record(number, answered="a", missing="b") for number in range(1, 6)]
    assert who(last_in_line(records, 6)) == "b"
    assert sits_out_until([*records, record(6, answered="ab")]) == {}


@pytest.mark.guarantee("whoever is last in line is asked only if there is no quorum without it.")
@given(
    st.sets(st.integers(1, 12), min_size=1),
    st.sets(st.integers(1, 12)),
    st.integers(1, 6),
    st.none() | st.integers(0, 4),
    st.integers(1, 50),
)
def test_whoever_is_last_in_line_fills_up_a_quorum_and_no_more(
    members: set[int], late: set[int], quorum: int, more: int | None, number: int
) -> None:
    cohort = None if more is None else quorum + more
    drawn = draw_cohort(
        sorted(members), cohort=cohort, study_run="r-1", number=number, last_in_line=late, quorum=quorum
    )
    ready = members - late
    assert len(drawn) == max(min(len(ready), cohort or len(members)), min(quorum, len(members)))
    if set(drawn) & late:
        assert ready <= set(drawn) and len(drawn) <= quorum
    usual = draw_cohort(sorted(ready), cohort=cohort, study_run="r-1", number=number)
    assert set(usual) <= set(drawn), "who sits out changes nobody else's place"
