"""The link does not wait for ever for a vault that does nothing."""

from pathlib import Path

import grpc
import pytest

from client.link.vault_client import _Patience
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


def test_a_vault_is_down_from_when_it_was_heard_last_and_busy_for_as_long_as_a_round_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, (down, busy) = [0.0], (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    monkeypatch.setattr("client.link.vault_client.time.monotonic", lambda: now[0])
    patience = _Patience(600.0, 6 * 3600.0)
    now[0] = 3600.0
    assert not patience.lasts(down, 1.0), "nothing was heard of it for an hour"
    patience.present()
    now[0] = 3600.0 + 590.0
    assert patience.lasts(down, 1.0), "how long it worked before it died is nobody's business"
    now[0] = 5 * 3600.0
    assert patience.lasts(busy, 1.0) and patience.lasts(down, 1.0), "whoever is busy is there"
    now[0] = 6 * 3600.0
    assert not patience.lasts(busy, 1.0) and not patience.lasts(grpc.StatusCode.INTERNAL, 1.0)
