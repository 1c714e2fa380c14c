"""Replies as bytes: what the outbox keeps and what the socket carries. No torch here: the link imports it."""

import json
from dataclasses import asdict

import numpy as np

from shared.errors import PeerError
from shared.protocol.messages import EvaluationReply, LedgerPosition, Status, TrainReply
from shared.protocol.update_encoding import pack, unpack

LARGEST_MESSAGE_BYTES = 512 * 2**20
MESSAGE_SIZES = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
)


def write_reply(reply: TrainReply) -> bytes:
    """A reply as bytes: a line of JSON, then the update as it travels, or what stands in its place in a secure sum."""
    plain = {name: value for name, value in asdict(reply).items() if name not in ("update", "encoding", "masked")}
    plain |= {"wire": reply.encoding.wire} | ({"masked": True} if reply.masked else {})
    return json.dumps(plain, sort_keys=True).encode() + b"\n" + (reply.masked or pack(reply.update, reply.encoding))


def read_reply(written: bytes) -> TrainReply:
    """Read what `write_reply` wrote.

    Raises:
        PeerError: it is something else.
    """
    head, _, update = written.partition(b"\n")
    try:
        plain = json.loads(head)
        plain |= {"status": Status(plain["status"]), "ledger": LedgerPosition(**plain["ledger"])}
        # an outbox may hold replies from before there was a choice
        masked = update if plain.pop("masked", False) else b""
        values, encoding = unpack(b"" if masked else update, plain.pop("wire", "float32"))
        return TrainReply(**plain, update=values, encoding=encoding, masked=masked)
    except (ValueError, KeyError, TypeError):
        raise PeerError("Expected a written reply, got other bytes.") from None


def write_evaluation(reply: EvaluationReply) -> bytes:
    """Write an evaluation's answer as bytes: a line of JSON, then whole numbers, or what stands in place of them."""
    plain = {name: value for name, value in asdict(reply).items() if name not in ("histogram", "masked")}
    plain |= {"masked": True} if reply.masked else {}
    numbers = reply.masked or reply.histogram.astype("<i8").tobytes()
    return json.dumps(plain, sort_keys=True).encode() + b"\n" + numbers


def read_evaluation(written: bytes) -> EvaluationReply:
    """Read what `write_evaluation` wrote.

    Raises:
        PeerError: it is something else.
    """
    head, _, counts = written.partition(b"\n")
    try:
        plain = json.loads(head)
        plain |= {"status": Status(plain["status"]), "ledger": LedgerPosition(**plain["ledger"])}
        masked = counts if plain.pop("masked", False) else b""
        histogram = np.frombuffer(b"" if masked else counts, "<i8").astype(np.int64)
        return EvaluationReply(**plain, histogram=histogram, masked=masked)
    except (ValueError, KeyError, TypeError):
        raise PeerError("Expected a written evaluation, got other bytes.") from None
