"""The messages between server and node, typed on both sides.

The trainable state is one packed vector. A reply names the digest of the adapter it started from, so a stale one is
recognised. Every reply of a study has the same length, a failed one too (zeros), so its size says nothing about the
data; that length follows from the task.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.protocol.update_encoding import FLOAT32, Encoding, Wire
from shared.protocol.versions import SPOKEN, Versions

PROTOCOL_VERSION = SPOKEN.newest
Vector = NDArray[np.float32]


class Status(IntEnum):
    """How a node answers. One code for every failure after training began: the cause is data and stays at home."""

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


@dataclass(frozen=True)
class LedgerPosition:
    """Where a node's ledger stood: told by the node with every round it paid for, and told back by the server."""

    height: int = 0
    """Rows; 0 if nothing is known."""
    head: str = "0" * 64
    """Hash of the last row; salted, so it says nothing about what the row holds."""


NO_POSITION = LedgerPosition()


@dataclass(frozen=True)
class StudyOffer:
    """The server shows a node a study, so that its operator can decide."""

    study_run: str
    study_json: str
    versions: Versions = SPOKEN
    """Of the protocol, that the server speaks."""


@dataclass(frozen=True)
class OfferReply:
    """How the node stands to a study run: approved, rejected, awaiting a person, or refused for a public reason."""

    study_run: str
    status: Status
    versions: Versions = SPOKEN
    """Of the protocol, that the node speaks."""


@dataclass(frozen=True)
class TrainTask:
    """The server asks a node for one round of one study run."""

    study_sha256: str
    study_run: str
    round: int
    adapter: Vector
    server_copy: LedgerPosition = NO_POSITION
    """This node's ledger as the server last saw it."""
    version: int = PROTOCOL_VERSION
    """Of the protocol, that the node speaks as well; the reply comes back in the same."""
    wire: Wire = "float32"
    """How the update of the reply is encoded: the study's."""

    @cached_property
    def adapter_sha256(self) -> str:
        """Digest of the adapter, computed once."""
        return digest(self.adapter)


@dataclass(frozen=True)
class TrainReply:
    """The node's answer: the change of the packed adapter, or a code and zeros."""

    study_sha256: str
    study_run: str
    round: int
    base_sha256: str
    status: Status
    update: Vector
    ledger: LedgerPosition = NO_POSITION
    """The node's ledger when it paid for this round."""
    encoding: Encoding = FLOAT32
    """What the update's values were rounded to."""


def without_update(task: TrainTask, status: Status) -> TrainReply:
    """A code, and zeros as long as the update would be."""
    zeros, encoding = np.zeros_like(task.adapter), Encoding.of_zeros(task.wire, len(task.adapter))
    return TrainReply(
        task.study_sha256, task.study_run, task.round, task.adapter_sha256, status, zeros, encoding=encoding
    )


def digest(vector: Vector) -> str:
    """Hex SHA-256 of a packed adapter's little-endian float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()
