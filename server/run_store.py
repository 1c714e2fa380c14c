"""The run store: studies, rounds, nodes and events, in SQLite by default or PostgreSQL by URL.

Several processes use it at once: the command line, the supervisor, the gateway, the process of a run. What people want
is written here by commands; the supervisor makes it so.
"""

import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import JSON, BigInteger, Engine, Text, create_engine, event, func, inspect, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from shared.errors import PolicyRefusal, RunError, SettingsError
from shared.protocol.messages import NO_POSITION, LedgerPosition
from shared.study.declaration import Study, recorded

log = logging.getLogger(__name__)
SCHEMA_VERSION = 2
EVERY = ""
MIGRATIONS: dict[int, tuple[tuple[str, str], ...]] = {
    0: ((EVERY, "ALTER TABLE runs ADD COLUMN reason TEXT NOT NULL DEFAULT ''"),),
    1: (
        # SQLite keeps 64 bits in any column that holds whole numbers
        ("postgresql", "ALTER TABLE nodes ALTER COLUMN ledger_height TYPE BIGINT"),
        (EVERY, "CREATE TABLE IF NOT EXISTS numbers (node_id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL)"),
        (
            EVERY,
            "INSERT INTO numbers SELECT node_id, name FROM nodes WHERE node_id IS NOT NULL ON CONFLICT DO NOTHING",
        ),
    ),
}
"""Statements that lead from a version to the next, each with the kind of database that needs it."""
State = Literal["queued", "running", "finished", "stopped", "failed"]
NO_INVITE = "Expected a valid invite, got one that is unknown, used or expired."
BUSY_S = 10


class Base(DeclarativeBase):
    """All tables."""


class MetaRow(Base):
    """Facts about the store itself."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class RunRow(Base):
    """One run of one study."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    study_name: Mapped[str]
    study_sha256: Mapped[str]
    study: Mapped[str] = mapped_column(Text)
    wanted: Mapped[bool]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[str]
    updated: Mapped[str]
    rounds: Mapped[int]


class RoundRow(Base):
    """One finished round."""

    __tablename__ = "rounds"
    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    record: Mapped[dict[str, Any]] = mapped_column(JSON)
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class NodeRow(Base):
    """One organisation's node."""

    __tablename__ = "nodes"
    name: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str | None] = mapped_column(Text, unique=True)
    node_id: Mapped[str | None]
    """Flower's number; unsigned 64 bit, which no database has."""
    invited: Mapped[str]
    enrolled: Mapped[str | None]
    revoked: Mapped[str | None]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    token_expires: Mapped[str]
    ledger_height: Mapped[int] = mapped_column(BigInteger, default=0)
    ledger_head: Mapped[str] = mapped_column(default=NO_POSITION.head)


class NumberRow(Base):
    """A number that Flower ever gave a node: rounds keep numbers, and a database that is begun anew gives others."""

    __tablename__ = "numbers"
    node_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class EventRow(Base):
    """Something that happened."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run: Mapped[str | None] = mapped_column(index=True)
    time: Mapped[str]
    kind: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


@dataclass(frozen=True)
class Run:
    """A run as the store knows it."""

    id: str
    study: Study
    wanted: bool
    """Whether somebody wants it to go on."""
    state: State
    reason: str
    created: str
    updated: str
    round: int
    """The last finished one."""
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the study by name and digest."""
        plain = {name: value for name, value in vars(self).items() if name != "study"}
        return plain | {"study": self.study.study.name, "study_sha256": self.study.sha256}


@dataclass(frozen=True)
class Node:
    """A node as the store knows it."""

    name: str
    node_id: int
    """Flower's number; 0 before enrolment."""
    public_key: str
    invited: str
    enrolled: str | None
    revoked: str | None


@dataclass(frozen=True)
class Happened:
    """An event."""

    id: int
    run: str | None
    time: str
    kind: str
    body: dict[str, Any]


class Store:
    """Opens the store, makes or migrates its tables.

    Args:
        url: SQLAlchemy's; `sqlite:///path` or `postgresql+psycopg://…`.

    Raises:
        RunError: it cannot be reached, or was written by a newer version.
    """

    def __init__(self, url: str) -> None:
        path = url.removeprefix("sqlite:///")
        if path != url and not Path(path).exists():
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._engine = _engine(url)
        try:
            self._prepare()
        except SQLAlchemyError as error:
            self.close()
            reason = str(error).splitlines()[0]
            raise RunError("Expected the run store to open, it did not.", hint=reason) from None
        except RunError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
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
        """Every run, newest first."""
        with self._session() as session:
            rows = session.scalars(select(RunRow).order_by(RunRow.created.desc(), RunRow.id)).all()
            return [_run(row, self._finished(session, row.id)) for row in rows]

    def run(self, name: str) -> Run:
        """One run, by its name or an unambiguous beginning of it.

        Raises:
            SettingsError: there is none, or more than one.
        """
        with self._session() as session:
            found = session.scalars(select(RunRow).where(RunRow.id.startswith(name, autoescape=True))).all()
            exact = [row for row in found if row.id == name] or list(found)
            if len(exact) != 1:
                known = ", ".join(session.scalars(select(RunRow.id).order_by(RunRow.created.desc()).limit(5))) or "none"
                raise SettingsError(f"Expected the name of one run (latest: {known}), got {name!r}.")
            return _run(exact[0], self._finished(session, exact[0].id))

    def set_state(self, run: str, state: State, *, reason: str = "") -> None:
        """Say how a run stands."""
        with self._session() as session:
            session.execute(update(RunRow).where(RunRow.id == run).values(state=state, reason=reason, updated=_now()))

    def want(self, run: str, *, wanted: bool) -> None:
        """Say whether a run should go on; one that stopped or failed is queued again."""
        with self._session() as session:
            row = session.get_one(RunRow, run)
            row.wanted, row.updated = wanted, _now()
            if wanted and row.state in ("stopped", "failed"):
                row.state, row.reason = "queued", ""
            if not wanted and row.state == "queued":
                row.state = "stopped"

    def next_wanted(self) -> Run | None:
        """The run that should be driven now: one at a time, the oldest first."""
        open_states = ("running", "queued")
        query = select(RunRow).where(RunRow.wanted, RunRow.state.in_(open_states)).order_by(RunRow.created, RunRow.id)
        with self._session() as session:
            rows = list(session.scalars(query))
            rows.sort(key=lambda row: row.state != "running")
            return _run(rows[0], self._finished(session, rows[0].id)) if rows else None

    def stop_unwanted(self) -> list[str]:
        """Mark running runs that nobody wants any more as stopped; returns them."""
        query = select(RunRow).where(RunRow.state == "running", RunRow.wanted.is_(False))
        with self._session() as session:
            rows = list(session.scalars(query))
            for row in rows:
                row.state, row.updated = "stopped", _now()
                session.add(EventRow(run=row.id, time=_now(), kind="stopped", body={}))
            return [row.id for row in rows]

    def record_round(self, run: str, record: dict[str, Any], evaluation: dict[str, Any] | None) -> None:
        """Keep a finished round; told again, nothing changes."""
        with self._session() as session:
            if session.get(RoundRow, (run, record["round"])) is None:
                session.add(RoundRow(run=run, number=record["round"], record=record, evaluation=evaluation))

    def rounds(self, run: str) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Record and evaluation of every finished round."""
        with self._session() as session:
            rows = session.scalars(select(RoundRow).where(RoundRow.run == run).order_by(RoundRow.number))
            return [(row.record, row.evaluation) for row in rows]

    def happened(self, kind: str, body: dict[str, Any], *, run: str | None = None) -> None:
        """Keep an event."""
        with self._session() as session:
            session.add(EventRow(run=run, time=_now(), kind=kind, body=body))

    def events(self, run: str | None = None, *, after: int = 0) -> list[Happened]:
        """Events in order, of one run or of all."""
        query = select(EventRow).where(EventRow.id > after).order_by(EventRow.id)
        if run is not None:
            query = query.where(EventRow.run == run)
        with self._session() as session:
            return [Happened(row.id, row.run, row.time, row.kind, row.body) for row in session.scalars(query)]

    def invite(self, name: str, token_sha256: str, expires: datetime) -> None:
        """A node of this name may enrol; an invite that nobody used is replaced.

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

    def check_invite(self, token_sha256: str, now: datetime) -> None:
        """Look whether an invite is good, without using it.

        Raises:
            PolicyRefusal: it is not; why is not said.
        """
        with self._session() as session:
            _invited(session, token_sha256, now)

    def enrolled_by(self, token_sha256: str, public_key: str, now: datetime) -> Node | None:
        """The node that used this very invite with this very key, while the invite would still be good."""
        query = select(NodeRow).where(NodeRow.token_sha256 == token_sha256, NodeRow.public_key == public_key)
        with self._session() as session:
            row = session.scalar(query)
            if row is None or row.revoked or now >= datetime.fromisoformat(row.token_expires):
                return None
            return _node(row)

    def enrol(self, token_sha256: str, public_key: str, node_id: int, now: datetime) -> Node:
        """Use an invite; of two at the same time one wins.

        Raises:
            PolicyRefusal: unknown, used or expired; which of them is not said.
        """
        try:
            with self._session() as session:
                row = _invited(session, token_sha256, now)
                statement = (
                    update(NodeRow)
                    .where(NodeRow.name == row.name, NodeRow.enrolled.is_(None))
                    .values(public_key=public_key, node_id=str(node_id), enrolled=now.isoformat())
                    .returning(NodeRow.name)
                )
                if session.scalar(statement) is None:
                    raise PolicyRefusal(NO_INVITE)
                session.merge(NumberRow(node_id=str(node_id), name=row.name))
                session.refresh(row)
                return _node(row)
        except IntegrityError:
            raise PolicyRefusal(NO_INVITE) from None  # the key has come in by another invite

    def nodes(self) -> list[Node]:
        """Every node that was ever invited."""
        with self._session() as session:
            return [_node(row) for row in session.scalars(select(NodeRow).order_by(NodeRow.name))]

    def node_by_key(self, public_key: str) -> Node | None:
        """The node with this key, also a revoked one."""
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
        """Flower's number of a node after Flower's own database was begun anew."""
        with self._session() as session:
            session.get_one(NodeRow, name).node_id = str(node_id)
            session.merge(NumberRow(node_id=str(node_id), name=name))

    def names(self) -> dict[int, str]:
        """Who every number of a round stands for, also one from before Flower's database was begun anew."""
        with self._session() as session:
            return {int(row.node_id): row.name for row in session.scalars(select(NumberRow))}

    def last(self, node: int) -> LedgerPosition:
        """What was last seen of a node's ledger."""
        with self._session() as session:
            row = session.scalar(select(NodeRow).where(NodeRow.node_id == str(node)))
            return NO_POSITION if row is None else LedgerPosition(row.ledger_height, row.ledger_head)

    def saw(self, node: int, position: LedgerPosition) -> None:
        """Keep what a node says of its ledger; never an older state. One that cannot be kept costs no round."""
        statement = (
            update(NodeRow)
            .where(NodeRow.node_id == str(node), NodeRow.ledger_height < position.height)
            .values(ledger_height=position.height, ledger_head=position.head)
        )
        try:
            with self._session() as session:
                session.execute(statement)
        except SQLAlchemyError as error:
            log.warning("The ledger mark of node %d was not kept: %s", node, type(error).__name__)

    def _finished(self, session: Session, run: str) -> int:
        return session.scalar(select(func.max(RoundRow.number)).where(RoundRow.run == run)) or 0

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._engine) as session, session.begin():
            yield session

    def _prepare(self) -> None:
        tables = inspect(self._engine).get_table_names()
        with self._session() as session:
            if "meta" in tables:
                version = int(session.get_one(MetaRow, "schema").value)
            else:
                version = 0 if "runs" in tables else SCHEMA_VERSION
            if version > SCHEMA_VERSION:
                raise RunError(
                    f"Expected a run store of version {SCHEMA_VERSION} or older, got version {version}.",
                    hint="A newer FedVault wrote it. Update this one.",
                )
            for step in range(version, SCHEMA_VERSION):
                for kind, statement in MIGRATIONS[step]:
                    if kind in (EVERY, self._engine.dialect.name):
                        session.execute(text(statement))
        Base.metadata.create_all(self._engine)
        with self._session() as session:
            session.merge(MetaRow(key="schema", value=str(SCHEMA_VERSION)))


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _pragmas(connection: Any, _record: Any) -> None:
            for pragma in ("journal_mode = WAL", f"busy_timeout = {BUSY_S * 1000}", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def _invited(session: Session, token_sha256: str, now: datetime) -> NodeRow:
    row = session.scalar(select(NodeRow).where(NodeRow.token_sha256 == token_sha256))
    if row is None or row.enrolled or row.revoked or now >= datetime.fromisoformat(row.token_expires):
        raise PolicyRefusal(NO_INVITE)
    return row


def _run(row: RunRow, finished: int) -> Run:
    study = recorded(json.loads(row.study), where=f"run {row.id}")
    state: Any = row.state
    return Run(row.id, study, row.wanted, state, row.reason, row.created, row.updated, finished, row.rounds)


def _node(row: NodeRow) -> Node:
    return Node(row.name, int(row.node_id or 0), row.public_key or "", row.invited, row.enrolled, row.revoked)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
