"""Reads and writes what private evaluations of runs brought: each site's answer, and the estimates of all."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.run_store.tables import CountsRow, EvaluationRow, EventRow, RunRow, newer_position
from shared.protocol.messages import LedgerPosition


class EvaluationStore:
    """The part of a run store that holds private evaluations.

    Args:
        session: opens a transaction.
    """

    def __init__(self, session: Callable[[], AbstractContextManager[Session]]) -> None:
        self._session = session

    def keep_counts(
        self, run: str, number: int, site: str, answer: dict[str, Any], *, node: int, position: LedgerPosition
    ) -> None:
        """Keep a site's answer, its ledger position and the event; a second answer of the site changes nothing."""
        with self._session() as session:
            if session.get(CountsRow, (run, number, site)) is None:
                session.add(CountsRow(run=run, number=number, site=site, answer=answer))
                session.execute(newer_position(node, position))
                body = {"number": number, "node": node, "verdict": answer["status"]}
                session.add(EventRow(run=run, time=_now(), kind="counted", body=body))

    def counts(self, run: str, number: int) -> dict[str, dict[str, Any]]:
        """Return the sites' answers to one evaluation."""
        query = select(CountsRow).where(CountsRow.run == run, CountsRow.number == number)
        with self._session() as session:
            return {row.site: row.answer for row in session.scalars(query)}

    def finish(self, run: str, number: int, estimates: dict[str, Any]) -> None:
        """Keep what follows from the answers, when an evaluation is over, and the event that it is."""
        with self._session() as session:
            if session.get(EvaluationRow, (run, number)) is None:
                session.add(EvaluationRow(run=run, number=number, estimates=estimates))
                session.add(EventRow(run=run, time=_now(), kind="evaluated", body={"number": number}))

    def of_run(self, run: str) -> dict[int, dict[str, Any]]:
        """Return the evaluations of a run that are over, by the rounds before them, in order."""
        query = select(EvaluationRow).where(EvaluationRow.run == run).order_by(EvaluationRow.number)
        with self._session() as session:
            return {row.number: row.estimates for row in session.scalars(query)}

    def count(self, run: str) -> int:
        """Return how many evaluations of a run are over."""
        query = select(func.count()).select_from(EvaluationRow).where(EvaluationRow.run == run)
        with self._session() as session:
            return session.scalar(query) or 0

    def latest(self) -> tuple[str, dict[str, Any]] | None:
        """Return the newest run with an evaluation that is over, and the last of these."""
        newest = (RunRow.created.desc(), EvaluationRow.number.desc())
        query = select(EvaluationRow).join(RunRow, RunRow.id == EvaluationRow.run).order_by(*newest).limit(1)
        with self._session() as session:
            row = session.scalar(query)
            return None if row is None else (row.run, row.estimates)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
