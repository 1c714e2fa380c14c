"""The card says whom a study's promise rests on."""

from typing import Any

from server.export.trust import trust_setting

ROSTER: dict[str, Any] = {"mode": "masked", "nodes": dict.fromkeys("abcde", ""), "threshold": 4, "colluders": 1}


def test_a_masked_studys_epsilon_holds_whoever_colludes() -> None:
    text = trust_setting(ROSTER)
    assert "only with 4 of the 5 organisations, while at most 1 of them" in text
    assert text.endswith("Every organisation added all of its noise, so the epsilon above holds whoever colludes.")


def test_shared_noise_rests_on_the_number_of_colluders() -> None:
    text = trust_setting(ROSTER | {"mode": "shared"})
    assert text.endswith("so the epsilon above rests on that number of colluders too.")
