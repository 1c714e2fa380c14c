"""What rounds cost one after the other, and how many a limit affords."""

import pytest

from shared.errors import SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.cost_by_round import MOST_ROUNDS, epsilon_by_round, rounds_afforded
from shared.privacy.noise_schedule import NoiseSchedule, plan
from shared.study.sections import Privacy

LOCAL_STEPS, ROUNDS = 5, 8


@pytest.fixture(scope="module")
def planned() -> NoiseSchedule:
    return plan(Privacy(epsilon=3.0, sampling_rate=0.1), steps=LOCAL_STEPS * ROUNDS)


@pytest.mark.guarantee("so many more rounds cost no more than `limit`, and one more round would.")
@pytest.mark.parametrize("spent", [0, 3, 40])
@pytest.mark.parametrize("limit", [0.01, 1.0, 3.0, 9.5])
def test_so_many_rounds_are_afforded_and_not_one_more(planned: NoiseSchedule, limit: float, spent: int) -> None:
    def cost(rounds: int) -> float:
        return epsilon_rdp([planned.release(spent + LOCAL_STEPS * rounds)], planned.delta)

    found = rounds_afforded(planned, local_steps=LOCAL_STEPS, limit=limit, spent_steps=spent)
    assert found == 0 or cost(found) <= limit
    assert cost(found + 1) > limit


def test_a_study_affords_itself_once(planned: NoiseSchedule) -> None:
    assert rounds_afforded(planned, local_steps=LOCAL_STEPS, limit=3.0) == ROUNDS
    assert rounds_afforded(planned, local_steps=LOCAL_STEPS, limit=3.0, spent_steps=2 * LOCAL_STEPS) == ROUNDS - 2
    assert rounds_afforded(planned, local_steps=LOCAL_STEPS, limit=3.0, spent_steps=LOCAL_STEPS * ROUNDS) == 0


def test_a_limit_without_end_is_cut_off(planned: NoiseSchedule) -> None:
    assert rounds_afforded(planned, local_steps=1, limit=1e9) == MOST_ROUNDS


def test_cost_grows_with_every_round_up_to_the_studys(planned: NoiseSchedule) -> None:
    found = epsilon_by_round(planned, rounds=ROUNDS, local_steps=LOCAL_STEPS)
    assert len(found) == ROUNDS and found == sorted(set(found))
    assert 2.99 < found[-1] <= 3.0


def test_a_limit_of_nothing_is_refused(planned: NoiseSchedule) -> None:
    with pytest.raises(SettingsError, match=r"limit=0\.0"):
        rounds_afforded(planned, local_steps=1, limit=0.0)
