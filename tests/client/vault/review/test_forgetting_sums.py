"""Keys of a secure sum stay for as long as an evaluation may still ask for them, and no longer."""

from types import SimpleNamespace
from typing import Any, cast

from client.vault.ledger.outbox import DAY_S
from client.vault.ledger.rows import ApprovedRun, Evaluations
from client.vault.ledger.state import LedgerState
from client.vault.review.forgetting import forget_left_over
from shared.privacy.releases import NoisyCounts, SubsampledGaussian


class Sums:
    """Keys of one run, last used long ago."""

    def __init__(self) -> None:
        self.forgotten = False

    def holds(self, _run: str) -> bool:
        return not self.forgotten

    def last_change(self, _run: str) -> float:
        return 0.0

    def forget(self, _run: str) -> None:
        self.forgotten = True


def forgets(idle_days: float, *, trained: int, evaluated: int) -> bool:
    evaluations = Evaluations(NoisyCounts(6.0, 1), (1, 2), attempts=dict.fromkeys(range(1, 1 + evaluated), "d" * 64))
    attempts: dict[int, str | None] = dict.fromkeys(range(1, 1 + trained), "d" * 64)
    run = ApprovedRun("ward", "s" * 64, 2, SubsampledGaussian(2.0, 0.1, 1), attempts, evaluations=evaluations)
    state, sums = LedgerState(), Sums()
    state.runs["r-1"] = run
    node: Any = SimpleNamespace(sums=sums, approved=SimpleNamespace(holds=lambda _run: False))
    forget_left_over(cast(Any, node), state, now=idle_days * DAY_S)
    return sums.forgotten


def test_keys_are_kept_while_an_evaluation_is_left_and_go_a_week_after_the_last() -> None:
    assert not forgets(8, trained=2, evaluated=1), "all rounds are trained, and the last evaluation is to come"
    assert forgets(91, trained=2, evaluated=1), "nobody has asked for it for three months"
    assert not forgets(6, trained=2, evaluated=2) and forgets(8, trained=2, evaluated=2)
