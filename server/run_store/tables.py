"""The run store's tables, as SQLAlchemy rows."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Text, Update, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.protocol.messages import NO_POSITION, LedgerPosition


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


class EvaluationRow(Base):
    """One private evaluation that is over."""

    __tablename__ = "evaluations"
    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """Rounds that led to the adapter."""
    estimates: Mapped[dict[str, Any]] = mapped_column(JSON)


class CountsRow(Base):
    """One site's answer to a private evaluation: its noisy counts, or why there are none."""

    __tablename__ = "counts"
    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(primary_key=True)
    answer: Mapped[dict[str, Any]] = mapped_column(JSON)


class NodeRow(Base):
    """One organisation's node."""

    __tablename__ = "nodes"
    name: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str | None] = mapped_column(Text, unique=True)
    node_id: Mapped[str | None] = mapped_column(index=True)
    """Flower's number; unsigned 64 bit, which no database has."""
    invited: Mapped[str]
    enrolled: Mapped[str | None]
    revoked: Mapped[str | None]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    token_expires: Mapped[str]
    ledger_height: Mapped[int] = mapped_column(BigInteger, default=0)
    ledger_head: Mapped[str] = mapped_column(default=NO_POSITION.head)
    ledger_mac: Mapped[str] = mapped_column(default=NO_POSITION.mac)
    """The node's own; the server can neither make nor check one."""


class OperatorRow(Base):
    """One certificate of an operator who may see the page from another machine."""

    __tablename__ = "operators"
    serial: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    may_act: Mapped[bool]
    issued: Mapped[str]
    issued_by: Mapped[str]
    expires: Mapped[str]
    revoked: Mapped[str | None]


class NumberRow(Base):
    """A number that Flower ever gave a node: rounds keep numbers, and a new database gives others."""

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


def newer_position(node: int, position: LedgerPosition) -> Update:
    """Return the statement that keeps a node's ledger position if it is newer than the one that is kept."""
    return (
        update(NodeRow)
        .where(NodeRow.node_id == str(node), NodeRow.ledger_height < position.height)
        .values(ledger_height=position.height, ledger_head=position.head, ledger_mac=position.mac)
    )
