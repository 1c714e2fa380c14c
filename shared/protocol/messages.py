"""Define the messages between server and node, as typed values on both sides.

The trainable state is one packed vector. A reply names the digest of the adapter it started from, so a stale one is
recognised. Every reply of a study has the same length, a failed one too (zeros), so its size says nothing about the
data; that length follows from the task.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shared.protocol.update_encoding import FLOAT32, Encoding, Wire
from shared.protocol.versions import SPOKEN, Versions

PROTOCOL_VERSION = SPOKEN.newest
NO_MAC = "0" * 64
Vector = NDArray[np.float32]
Counts = NDArray[np.int64]
Leg = Literal["survivors", "opening"]
"""A question of a secure sum: who is in it, signed; or what opens their sum and nothing else."""
LEGS: tuple[Leg, ...] = get_args(Leg)
SumOf = Literal["training", "evaluation"]
"""What a secure sum adds up: the parts of a round, or the counts of an evaluation."""
SUMS_OF: tuple[SumOf, ...] = get_args(SumOf)


class Status(IntEnum):
    """Answer of a node. Failures after training began share one code: their cause depends on data and is not sent."""

    TRAINED = 0
    FAILED = 1
    REFUSED_STUDY = 2
    REFUSED_VERSION = 3
    REFUSED_SIZE = 4
    REFUSED_EXACTNESS = 5
    REFUSED_REAL_DATA = 6
    REFUSED_BUDGET = 7
    REFUSED_POLICY = 8
    REFUSED_LEDGER = 9
    LOST = 10
    REFUSED_HOURS = 11
    AWAITING_APPROVAL = 12
    APPROVED = 13
    REJECTED = 14
    REFUSED_MODEL = 15
    REFUSED_ADAPTER = 16
    """The task's adapter lies beyond what honest rounds reach; since protocol version 6."""
    REFUSED_ROSTER = 17
    """A secure sum among nodes that this one's policy does not take, or another roster than before; since version 8."""
    REFUSED_SURVIVORS = 18
    """A set of survivors that this node may not sign, or not open; since version 8."""
    OUT_OF_SECURE_SUM = 19
    """The node has no keys of this run any more: it was restored from a backup; since version 8."""
    EVALUATED = 20
    """The noisy counts of an evaluation; since version 9."""
    REFUSED_EVALUATION = 21
    """An evaluation that the study does not declare, or of another adapter than before; since version 9."""


@dataclass(frozen=True)
class LedgerPosition:
    """Length of a node's ledger and hash of its last row: sent with each paid round, and sent back by the server."""

    height: int = 0
    """Number of rows; 0 if nothing is known."""
    head: str = "0" * 64
    """Hash of the last row; salted, so it reveals nothing of the row's contents."""
    mac: str = NO_MAC
    """The node's own MAC over both, so that it knows its word when the server sends it back; zeros if there is none."""


NO_POSITION = LedgerPosition()


@dataclass(frozen=True)
class Peer:
    """A node of the federation, as the server names it to the others."""

    name: str
    key_sha256: str
    """Fingerprint of its certificate's public key, in hexadecimal."""


@dataclass(frozen=True)
class StudyOffer:
    """A study that the server shows to a node, so that its operator can decide."""

    study_run: str
    study_json: str
    versions: Versions = SPOKEN
    """Versions of the protocol that the server speaks."""
    peers: tuple[Peer, ...] = ()
    """Who may take part in its secure sum; empty for a study without one."""


@dataclass(frozen=True)
class OfferReply:
    """A node's answer to an offer: approved, rejected, awaiting a person, or refused for a public reason."""

    study_run: str
    status: Status
    versions: Versions = SPOKEN
    """Versions of the protocol that the node speaks."""
    declared_size: int = 0
    """Of an approved run: the size that its operator declared, a public number; 0 if it is not said."""
    entry: bytes = b""
    """This node's signed line in the roster of the run's secure sum; empty for a study without one."""


@dataclass(frozen=True)
class TrainTask:
    """A request of the server that a node train one round of a study run."""

    study_sha256: str
    study_run: str
    round: int
    adapter: Vector
    server_copy: LedgerPosition = NO_POSITION
    """This node's ledger position as the server last received it."""
    version: int = PROTOCOL_VERSION
    """Version of the protocol, one that the node speaks; the reply uses the same."""
    wire: Wire = "float32"
    """Encoding of the reply's update, which the study declares."""
    roster: bytes = b""
    """Who takes part in the run's secure sum, with their signed keys; empty for a study without one."""

    @cached_property
    def adapter_sha256(self) -> str:
        """SHA-256 of the adapter, computed once."""
        return digest(self.adapter)


@dataclass(frozen=True)
class TrainReply:
    """A node's answer to a task: the change of the packed adapter, or a code and zeros."""

    study_sha256: str
    study_run: str
    round: int
    base_sha256: str
    status: Status
    update: Vector
    ledger: LedgerPosition = NO_POSITION
    """The node's ledger position when it paid for this round."""
    encoding: Encoding = FLOAT32
    """Encoding that the update's values were rounded to."""
    masked: bytes = b""
    """What the node adds to a secure sum, in place of an update; zeros as long where there is none."""


@dataclass(frozen=True)
class LegTask:
    """A question of a secure sum after the nodes' parts have come: sign the survivors, or open their sum."""

    leg: Leg
    study_sha256: str
    study_run: str
    round: int
    """Of an evaluation, the rounds that led to its adapter."""
    content: bytes
    """Of the secure sum's session; the protocol carries it as it is."""
    purpose: SumOf = "training"


@dataclass(frozen=True)
class LegReply:
    """A node's answer to a question of a secure sum: `trained` with its content, or a public code without any."""

    leg: Leg
    study_run: str
    round: int
    status: Status
    content: bytes = b""


@dataclass(frozen=True)
class EvaluationTask:
    """A request of the server that a node evaluate an adapter on the records that it holds out."""

    study_sha256: str
    study_run: str
    number: int
    """Rounds that led to the adapter: one of the study's `evaluated_after`."""
    adapter: Vector
    server_copy: LedgerPosition = NO_POSITION
    """This node's ledger position as the server last received it."""
    roster: bytes = b""
    """Who takes part in the run's secure sum, as in a task; empty for a study without one."""

    @cached_property
    def adapter_sha256(self) -> str:
        """SHA-256 of the adapter, computed once."""
        return digest(self.adapter)


@dataclass(frozen=True)
class EvaluationReply:
    """A node's answer to an evaluation: `evaluated` with its noisy counts or its part of a sum, or a public code."""

    study_run: str
    number: int
    adapter_sha256: str
    status: Status
    histogram: Counts
    """Noisy counts by cell, in steps of the public grid of `shared.private_evaluation.cells`. As many zeros where it
    failed or was lost after it was paid for; none where it was refused before."""
    ledger: LedgerPosition = NO_POSITION
    """The node's ledger position when it paid for this evaluation."""
    masked: bytes = b""
    """What the node adds to a secure sum, in place of a histogram; zeros as long where it failed or was lost."""


def without_update(task: TrainTask, status: Status) -> TrainReply:
    """Answer a task with a code, and with zeros as long as the update would be."""
    zeros, encoding = np.zeros_like(task.adapter), Encoding.of_zeros(task.wire, len(task.adapter))
    return TrainReply(
        task.study_sha256, task.study_run, task.round, task.adapter_sha256, status, zeros, encoding=encoding
    )


def without_content(task: LegTask, status: Status) -> LegReply:
    """Answer a question of a secure sum with a code alone."""
    return LegReply(task.leg, task.study_run, task.round, status)


def without_histogram(task: EvaluationTask, status: Status, *, cells: int = 0) -> EvaluationReply:
    """Answer an evaluation with a code, and with as many zeros as there would be counts."""
    return EvaluationReply(task.study_run, task.number, task.adapter_sha256, status, np.zeros(cells, np.int64))


def digest(vector: Vector) -> str:
    """Return the hex SHA-256 of a packed adapter's little-endian float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()
