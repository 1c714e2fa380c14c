"""Write the question of a private evaluation and its answer as Flower's records, and read them back.

The adapter travels as in a task, and so does the server's copy of the ledger's position: in a record of its own. A
sender may put anything into a record: what cannot be read is refused. Without a secure sum all of it travels in the
oldest version that has evaluations, so that a node of that age understands it.
"""

from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from shared.errors import PeerError
from shared.protocol.flower_records import (
    LARGEST_ROUND,
    Values,
    bytes_under,
    config_of,
    number_under,
    position_fields,
    read_position,
    server_copy_record,
    status_of,
    text_under,
)
from shared.protocol.messages import EvaluationReply, EvaluationTask, LedgerPosition
from shared.protocol.update_encoding import pack, unpack
from shared.protocol.versions import SAYS_EVALUATION, SAYS_SUMMED_EVALUATION, SPOKEN, Versions

EVALUATION, ECHO, COUNTS = "evaluation", "echo", "counts"
KNOWING = Versions(SAYS_EVALUATION, SPOKEN.newest)
LARGEST_COUNTS_BYTES = 8 * 2**16
"""Eight for each cell, and no study has more than 65,536 of them."""
LARGEST_MASKED_BYTES = LARGEST_COUNTS_BYTES + 2**16
"""A hundred nodes' boxes and digests come to 12 KiB."""


def is_evaluation(records: RecordDict) -> bool:
    """Return true if a message asks for an evaluation."""
    return EVALUATION in records


def encode_evaluation(task: EvaluationTask) -> RecordDict:
    """Turn a request for an evaluation into Flower records."""
    config: dict[str, Any] = {
        "protocol-version": SAYS_SUMMED_EVALUATION if task.roster else SAYS_EVALUATION,
        "study-sha256": task.study_sha256,
        "study-run": task.study_run,
        "number": task.number,
        "adapter-sha256": task.adapter_sha256,
        "adapter": pack(task.adapter),
        **({"roster": task.roster} if task.roster else {}),
    }
    return evaluation_for(RecordDict({EVALUATION: ConfigRecord(config)}), task.server_copy)


def evaluation_for(records: RecordDict, server_copy: LedgerPosition) -> RecordDict:
    """Address an encoded request to a node with this ledger position; the adapter is shared, not copied."""
    return RecordDict({**records, ECHO: server_copy_record(server_copy, SAYS_EVALUATION)})


def decode_evaluation(records: RecordDict) -> EvaluationTask:
    """Read a request for an evaluation.

    Raises:
        VersionError: it is in a version that this side does not speak.
        PeerError: a record is missing or mistyped, the number is impossible, or the adapter does not match its digest.
    """
    config = config_of(records, EVALUATION, KNOWING)
    adapter = unpack(bytes_under(config, "adapter"), "float32")[0].copy()
    echo = config_of(records, ECHO, KNOWING)
    position = read_position(echo, number_under(echo, "protocol-version"))
    study, run = text_under(config, "study-sha256"), text_under(config, "study-run")
    roster = bytes_under(config, "roster") if "roster" in config else b""
    task = EvaluationTask(study, run, _rounds(config), adapter, position, roster)
    if task.adapter_sha256 != text_under(config, "adapter-sha256"):
        raise PeerError("Expected an adapter that matches its digest, got other bytes.")
    return task


def encode_evaluation_reply(reply: EvaluationReply) -> RecordDict:
    """Turn a node's answer to an evaluation into Flower records."""
    config: dict[str, Any] = {
        "protocol-version": SAYS_SUMMED_EVALUATION if reply.masked else SAYS_EVALUATION,
        "study-run": reply.study_run,
        "number": reply.number,
        "adapter-sha256": reply.adapter_sha256,
        "status": int(reply.status),
        **position_fields(reply.ledger, SAYS_EVALUATION),
        "histogram": reply.histogram.astype("<i8").tobytes(),
        **({"masked": reply.masked} if reply.masked else {}),
    }
    return RecordDict({COUNTS: ConfigRecord(config)})


def decode_evaluation_reply(records: RecordDict) -> EvaluationReply:
    """Read a node's answer to an evaluation; whether it has as many counts as the study has cells, the server checks.

    Raises:
        VersionError: it is in a version that this side does not speak.
        PeerError: a record is missing, mistyped or too large.
    """
    config = config_of(records, COUNTS, KNOWING)
    packed = bytes_under(config, "histogram")
    if len(packed) > LARGEST_COUNTS_BYTES or len(packed) % 8:
        raise PeerError(f"Expected at most {LARGEST_COUNTS_BYTES} bytes of whole numbers, got {len(packed)}.")
    masked = bytes_under(config, "masked") if "masked" in config else b""
    if len(masked) > LARGEST_MASKED_BYTES:
        raise PeerError(f"Expected at most {LARGEST_MASKED_BYTES} bytes behind a mask, got {len(masked)}.")
    return EvaluationReply(
        text_under(config, "study-run"),
        _rounds(config),
        text_under(config, "adapter-sha256"),
        status_of(config),
        np.frombuffer(packed, "<i8").astype(np.int64),
        read_position(config, number_under(config, "protocol-version")),
        masked,
    )


def _rounds(config: Values) -> int:
    number = number_under(config, "number")
    if not 0 <= number <= LARGEST_ROUND:
        raise PeerError(f"Expected a number of rounds up to {LARGEST_ROUND}, got number={number}.")
    return number
