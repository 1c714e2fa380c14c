"""Reads and writes the run store.

Several processes use it at once: the command line, the supervisor, the gateway, the process of a run. Commands write
here what people want; the supervisor makes it so.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from server.earlier_names import read_event_kind, read_record
from server.run_store.database import open_database
from server.run_store.evaluations import EvaluationStore
from server.run_store.operators import OperatorStore
from server.run_store.tables import EventRow, NodeRow, NumberRow, RoundRow, RunRow, newer_position
from server.run_store.values import NO_NUMBER, OPEN_STATES, Event, Node, Run, RunState
from shared.errors import PolicyRefusal, SettingsError
from shared.protocol.messages import NO_POSITION, LedgerPosition
from shared.study.declaration import Study

log = logging.getLogger(__name__)
RESUMED = "resumed"
"""Kind of the event that a person queued a run again."""
NO_INVITE = "Expected a valid invite, got one that is unknown, used or expired."


class Store:
    """The run store, open.

    Args:
        url: SQLAlchemy's; `sqlite:///path` or `postgresql+psycopg://…`.

    Raises:
        RunError: it cannot be reached, or was written by a newer version.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        self.evaluations = EvaluationStore(self._session)
        self.operators = OperatorStore(self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def create_run(self, study: Study) -> Run:
        """Queue a new run of a study."""
        now, name = _now(), f"r-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}"
        with self._session() as session:
            session.add(
                RunRow(
                    id=name,
                    study_name=study.study.name,
                    study_sha256=study.sha256,
                    study=study.model_dump_json(),
                    wanted=True,
                    state="queued",
                    reason="",
                    created=now,
                    updated=now,
                    rounds=study.federation.rounds,
                )
            )
        return self.run(name)

    def runs(self) -> list[Run]:
        """Return every run, newest first."""
        with self._session() as session:
            rows = session.scalars(select(RunRow).order_by(RunRow.created.desc(), RunRow.id)).all()
            return [_run(row, _finished_rounds(session, row.id)) for row in rows]

    def run(self, name: str) -> Run:
        """Return one run, by its name or an unambiguous beginning of it.

        Raises:
            SettingsError: there is none, or more than one.
        """
        with self._session() as session:
            rows = session.scalars(select(RunRow).where(RunRow.id.startswith(name, autoescape=True))).all()
            matching = [row for row in rows if row.id == name] or list(rows)
            if len(matching) != 1:
                known = ", ".join(session.scalars(select(RunRow.id).order_by(RunRow.created.desc()).limit(5))) or "none"
                raise SettingsError(f"Expected the name of one run (latest: {known}), got {name!r}.")
            return _run(matching[0], _finished_rounds(session, matching[0].id))

    def set_state(self, run: str, state: RunState, *, reason: str = "") -> None:
        """Write down the state of a run."""
        with self._session() as session:
            session.execute(update(RunRow).where(RunRow.id == run).values(state=state, reason=reason, updated=_now()))

    def want(self, run: str, *, wanted: bool) -> None:
        """Write down whether a run should continue; one that stopped or failed is queued again."""
        with self._session() as session:
            row = session.get_one(RunRow, run)
            row.wanted, row.updated = wanted, _now()
            if wanted and row.state in ("stopped", "failed"):
                row.state, row.reason = "queued", ""
                session.add(EventRow(run=run, time=_now(), kind=RESUMED, body={}))
            if not wanted and row.state in ("queued", "waiting"):
                row.state, row.reason = "stopped", ""

    def next_wanted(self) -> Run | None:
        """Return the run that comes first: the one under way, else the oldest."""
        query = select(RunRow).where(RunRow.wanted, RunRow.state.in_(OPEN_STATES)).order_by(RunRow.created, RunRow.id)
        with self._session() as session:
            rows = list(session.scalars(query))
            rows.sort(key=lambda row: row.state != "running")
            return _run(rows[0], _finished_rounds(session, rows[0].id)) if rows else None

    def open_runs(self) -> list[tuple[str, RunState]]:
        """Return name and state of every run that is wanted and has not come to an end, the oldest first."""
        query = select(RunRow.id, RunRow.state).where(RunRow.wanted, RunRow.state.in_(OPEN_STATES))
        with self._session() as session:
            rows: Any = session.execute(query.order_by(RunRow.created, RunRow.id)).all()
            return [(run, state) for run, state in rows]

    def stop_unwanted(self) -> list[str]:
        """Mark runs that nobody wants any more, and whose process was there, as stopped; returns their names."""
        there = RunRow.state.in_(("running", "waiting"))
        query = select(RunRow).where(there, RunRow.wanted.is_(False))
        with self._session() as session:
            rows = list(session.scalars(query))
            for row in rows:
                row.state, row.reason, row.updated = "stopped", "", _now()
                session.add(EventRow(run=row.id, time=_now(), kind="stopped", body={}))
            return [row.id for row in rows]

    def record_round(self, run: str, record: dict[str, Any], evaluation: dict[str, Any] | None) -> None:
        """Keep a finished round and the event that it is; a second record of the same round changes nothing."""
        with self._session() as session:
            if session.get(RoundRow, (run, record["round"])) is None:
                session.add(RoundRow(run=run, number=record["round"], record=record, evaluation=evaluation))
                session.add(EventRow(run=run, time=_now(), kind="round", body=record | {"evaluation": evaluation}))

    def rounds(
        self, run: str, *, after: int = 0, most: int | None = None
    ) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Return record and evaluation of every finished round, or of so many after a known one."""
        query = select(RoundRow).where(RoundRow.run == run, RoundRow.number > after).order_by(RoundRow.number)
        with self._session() as session:
            return [(read_record(row.record), row.evaluation) for row in session.scalars(query.limit(most))]

    def count_rounds(self) -> dict[str, int]:
        """Return how many finished rounds each run has."""
        query = select(RoundRow.run, func.count().label("rounds")).group_by(RoundRow.run)
        with self._session() as session:
            return {row.run: row.rounds for row in session.execute(query)}

    def round_numbers(self, run: str) -> set[int]:
        """Return the numbers of a run's finished rounds."""
        with self._session() as session:
            return set(session.scalars(select(RoundRow.number).where(RoundRow.run == run)))

    def round_record(self, run: str, number: int) -> dict[str, Any]:
        """Return the record of one finished round."""
        with self._session() as session:
            return read_record(session.get_one(RoundRow, (run, number)).record)

    def count_runs(self) -> dict[str, int]:
        """Return how many runs are in each state."""
        query = select(RunRow.state, func.count().label("runs")).group_by(RunRow.state)
        with self._session() as session:
            return {row.state: row.runs for row in session.execute(query)}

    def record_event(self, kind: str, body: dict[str, Any], *, run: str) -> None:
        """Keep an event of a run."""
        with self._session() as session:
            session.add(EventRow(run=run, time=_now(), kind=kind, body=body))

    def record_operator(self, action: str, body: dict[str, Any]) -> None:
        """Keep what an operator did; it is an event of no run, whichever it was about."""
        with self._session() as session:
            session.add(EventRow(run=None, time=_now(), kind=action, body=body))

    def operator_events(self, *, most: int) -> list[Event]:
        """Return what operators did last, the newest first."""
        query = select(EventRow).where(EventRow.run.is_(None)).order_by(EventRow.id.desc()).limit(most)
        with self._session() as session:
            return [_event(row) for row in session.scalars(query)]

    def record_answer(self, body: dict[str, Any], *, run: str, node: int, position: LedgerPosition) -> None:
        """Keep the event that a node has answered, and the ledger position that came with it, as one transaction.

        A position that cannot be kept costs no round; one that is older than the one that is kept changes nothing.
        """
        try:
            with self._session() as session:
                session.add(EventRow(run=run, time=_now(), kind="answered", body=body))
                session.execute(newer_position(node, position))
        except SQLAlchemyError as error:
            log.warning("The ledger position of node %d was not kept: %s", node, type(error).__name__)
            self.record_event("answered", body, run=run)

    def events(self, run: str, *, after: int = 0, kind: str | None = None) -> list[Event]:
        """Return a run's events in order, those after a known one, of one kind or of all."""
        query = select(EventRow).where(EventRow.run == run, EventRow.id > after).order_by(EventRow.id)
        if kind is not None:
            query = query.where(EventRow.kind == kind)
        with self._session() as session:
            return [_event(row) for row in session.scalars(query)]

    def latest_events(self, run: str, *, most: int) -> list[Event]:
        """Return a run's last events, in order."""
        query = select(EventRow).where(EventRow.run == run).order_by(EventRow.id.desc()).limit(most)
        with self._session() as session:
            return [_event(row) for row in session.scalars(query)][::-1]

    def events_since_round(self, run: str) -> list[Event]:
        """Return a run's events since its last finished round, in order: those of the round that is under way."""
        query = select(func.max(EventRow.id)).where(EventRow.run == run, EventRow.kind == "round")
        with self._session() as session:
            last = session.scalar(query) or 0
        return self.events(run, after=last)

    def invite(self, name: str, token_sha256: str, expires: datetime) -> None:
        """Let a node of this name enrol; an invite that nobody used is replaced.

        Raises:
            SettingsError: a node of this name is enrolled, or was revoked.
        """
        with self._session() as session:
            row = session.get(NodeRow, name)
            if row is not None and (row.enrolled or row.revoked):
                raise SettingsError(f"Expected a new name, {name!r} is taken.", hint="fedvault-server nodes")
            if row is None:
                row = NodeRow(name=name, invited=_now(), ledger_height=0, ledger_head=NO_POSITION.head)
                session.add(row)
            row.token_sha256, row.token_expires, row.invited = token_sha256, expires.isoformat(), _now()

    def invite_back(self, name: str, token_sha256: str, expires: datetime) -> None:
        """Let an enrolled node ask for a new certificate with this token and its own key.

        Raises:
            SettingsError: no node of this name is enrolled, or it was revoked.
        """
        with self._session() as session:
            row = session.get(NodeRow, name)
            if row is None or not row.enrolled or row.revoked:
                known = ", ".join(self.enrolled_names()) or "none"
                raise SettingsError(
                    f"Expected a node that is enrolled ({known}), got {name!r}.",
                    hint="Invite a new one without --renew. One that was revoked comes back under another name.",
                )
            row.token_sha256, row.token_expires = token_sha256, expires.isoformat()

    def enrol(self, token_sha256: str, public_key: str, node_id: int, now: datetime) -> Node:
        """Use an invite; of two keys at the same time one wins, and the same key may use it again while it is valid.

        Args:
            token_sha256: of the invite.
            public_key: of the node.
            node_id: Flower's number of it; `NO_NUMBER` if it has none yet.
            now: the time.

        Raises:
            PolicyRefusal: unknown, used or expired; which of them is not given.
        """
        claim = {"public_key": public_key, "node_id": str(node_id or "") or None, "enrolled": now.isoformat()}
        try:
            with self._session() as session:
                row = _invited(session, token_sha256, now)
                unused = update(NodeRow).where(NodeRow.name == row.name, NodeRow.enrolled.is_(None))
                if session.scalar(unused.values(**claim).returning(NodeRow.name)) and node_id:
                    session.merge(NumberRow(node_id=str(node_id), name=row.name))
                session.refresh(row)
                if row.public_key != public_key:
                    raise PolicyRefusal(NO_INVITE)
                return _node(row)
        except IntegrityError:
            raise PolicyRefusal(NO_INVITE) from None  # the key was enrolled by another invite

    def knows_invite(self, token_sha256: str) -> bool:
        """Return whether there is an invite with this token, used or not."""
        with self._session() as session:
            return session.scalar(select(NodeRow.name).where(NodeRow.token_sha256 == token_sha256)) is not None

    def nodes(self) -> list[Node]:
        """Return every node that was ever invited."""
        with self._session() as session:
            return [_node(row) for row in session.scalars(select(NodeRow).order_by(NodeRow.name))]

    def enrolled_names(self) -> list[str]:
        """Return the names of the nodes that are enrolled and not revoked."""
        query = select(NodeRow.name).where(NodeRow.enrolled.is_not(None), NodeRow.revoked.is_(None))
        with self._session() as session:
            return list(session.scalars(query.order_by(NodeRow.name)))

    def node_by_key(self, public_key: str) -> Node | None:
        """Return the node with this key, also a revoked one."""
        with self._session() as session:
            row = session.scalar(select(NodeRow).where(NodeRow.public_key == public_key))
            return None if row is None else _node(row)

    def revoke(self, name: str) -> None:
        """Shut a node out.

        Raises:
            SettingsError: no such node.
        """
        with self._session() as session:
            row = session.get(NodeRow, name)
            if row is None:
                known = ", ".join(session.scalars(select(NodeRow.name))) or "none"
                raise SettingsError(f"Expected a node ({known}), got {name!r}.")
            row.revoked = row.revoked or _now()

    def renumber(self, name: str, node_id: int) -> None:
        """Write down Flower's new number of a node, after Flower's own database was started afresh."""
        with self._session() as session:
            session.get_one(NodeRow, name).node_id = str(node_id)
            session.merge(NumberRow(node_id=str(node_id), name=name))

    def names(self) -> dict[int, str]:
        """Return the node's name for every number that Flower ever gave, also in a database that is gone."""
        with self._session() as session:
            return {int(row.node_id): row.name for row in session.scalars(select(NumberRow))}

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return the newest position that a node's ledger has reported."""
        with self._session() as session:
            row = session.scalar(select(NodeRow).where(NodeRow.node_id == str(node)))
            return NO_POSITION if row is None else LedgerPosition(row.ledger_height, row.ledger_head, row.ledger_mac)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine) as session, session.begin():
            yield session


def _invited(session: Session, token_sha256: str, now: datetime) -> NodeRow:
    row = session.scalar(select(NodeRow).where(NodeRow.token_sha256 == token_sha256))
    if row is None or row.revoked or now >= datetime.fromisoformat(row.token_expires):
        raise PolicyRefusal(NO_INVITE)
    return row


def _run(row: RunRow, finished: int) -> Run:
    state: Any = row.state
    return Run(
        id=row.id,
        study_name=row.study_name,
        study_sha256=row.study_sha256,
        study_text=row.study,
        wanted=row.wanted,
        state=state,
        reason=row.reason,
        created=row.created,
        updated=row.updated,
        round=finished,
        rounds=row.rounds,
    )


def _event(row: EventRow) -> Event:
    body = read_record(row.body) if row.kind == "round" else row.body
    return Event(row.id, row.run, row.time, read_event_kind(row.kind), body)


def _finished_rounds(session: Session, run: str) -> int:
    return session.scalar(select(func.max(RoundRow.number)).where(RoundRow.run == run)) or 0


def _node(row: NodeRow) -> Node:
    return Node(row.name, int(row.node_id or NO_NUMBER), row.public_key or "", row.invited, row.enrolled, row.revoked)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
