"""The link does not wait for ever for a vault that does nothing."""

from pathlib import Path

import pytest

from shared.protocol.messages import Status
from tests.support.stuck_vault import STEPS, TASK, stuck_vault


def test_a_vault_that_finishes_no_step_is_given_up_and_one_that_is_slow_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = list[int]()
    with stuck_vault(tmp_path, silent_for_s=0.6) as (stuck, vault):
        assert vault.train(TASK, on_step=steps.append).status is Status.FAILED
        assert "Expected a step of round 3 within 0.6 s" in caplog.text
        assert steps == list(range(1, STEPS + 1)), "longer than that in all, and none of them too long"
        assert stuck.cancelled.wait(10), "the vault ends the job at its next step"
