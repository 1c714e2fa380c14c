"""Decides which of the runs that people want is driven: one at a time, and whoever waits for people steps aside.

Rules
1. A run whose rounds are under way keeps its turn, whoever is older.
2. A run that waits keeps its turn while no other run could use it; else for `TURN_S`, and twice as long at each further
   turn in vain, to `LONGEST_TURN_S`, unless a run is there that has had no turn.
3. Next is whoever has had no turn, the oldest first; then whose turn is longest ago.
"""

from collections import Counter
from collections.abc import Sequence

from server.run_store.values import RunState

TURN_S, LONGEST_TURN_S = 60.0, 600.0
"""Enough for a process to start, offer its study to every node that is present, and hear their answers."""


class RunQueue:
    """Keeps whose turn it is; the caller brings the runs and the time."""

    def __init__(self) -> None:
        self._on_turn = ""
        self._waits_since: float | None = None
        self._turns = Counter[str]()
        self._last_turn = dict[str, int]()

    def next(self, runs: Sequence[tuple[str, RunState]], now: float) -> str | None:
        """Return the run to drive.

        Args:
            runs: wanted and not at their end, with their states; the oldest first.
            now: on the caller's clock.
        """
        states = dict(runs)
        under_way = [run for run in states if states[run] == "running"]
        if states.get(self._on_turn) != "waiting":
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        if under_way:
            return self._take(self._on_turn if self._on_turn in under_way else under_way[0])
        others = [run for run in states if run != self._on_turn]
        if self._on_turn in states and not (others and self._is_over(others, now)):
            return self._on_turn
        return self._take(min(others, key=lambda run: self._last_turn.get(run, 0))) if others else None

    def _is_over(self, others: Sequence[str], now: float) -> bool:
        if self._waits_since is None:
            return False
        new = any(run not in self._last_turn for run in others)
        turn_s = TURN_S if new else min(LONGEST_TURN_S, TURN_S * 2.0 ** min(self._turns[self._on_turn] - 1, 10))
        return now - self._waits_since >= turn_s

    def _take(self, run: str) -> str:
        if run != self._on_turn:
            self._on_turn, self._waits_since = run, None
            self._turns[run] += 1
            self._last_turn[run] = max(self._last_turn.values(), default=0) + 1
        return run
