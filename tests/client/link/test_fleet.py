"""What a node makes of the server's answers."""

from datetime import timedelta

import httpx
import pytest

from client.link.fleet import NotAccepted, WrongClock, call_flower
from client.link.loop import _trouble
from tests.support.flower_answers import refusing


@pytest.mark.parametrize(("server_is_ahead_s", "words"), [(-6, " s ahead of"), (-7200, "s ahead of"), (400, "behind")])
def test_a_clock_that_flower_refuses_is_called_a_clock_and_not_a_key(server_is_ahead_s: int, words: str) -> None:
    with pytest.raises(WrongClock) as raised:
        call_flower(refusing(timedelta(seconds=server_is_ahead_s)), None)
    trouble = _trouble(raised.value)
    assert f"{words} the server's: " in trouble and " here, " in trouble and "there (UTC)" in trouble
    assert "key" not in trouble and "NTP" in trouble


@pytest.mark.parametrize("server_is_ahead_s", [-3, 0, 120])
def test_a_key_that_is_refused_at_the_right_time_is_called_a_key(server_is_ahead_s: int) -> None:
    with pytest.raises(NotAccepted) as raised:
        call_flower(refusing(timedelta(seconds=server_is_ahead_s)), None)
    assert not isinstance(raised.value, WrongClock) and "does not accept this node's key" in _trouble(raised.value)


def test_an_answer_without_a_date_says_nothing_of_clocks() -> None:
    def call(_request: object) -> object:
        request, response = httpx.Request("POST", "https://gate"), httpx.Response(401, headers={"date": "soon"})
        raise httpx.HTTPStatusError("refused", request=request, response=response)

    with pytest.raises(NotAccepted) as raised:
        call_flower(call, None)
    assert not isinstance(raised.value, WrongClock)
