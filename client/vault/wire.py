"""Replies as bytes: what the outbox keeps and what the socket carries. No torch here: the link imports it."""

import json
from dataclasses import asdict

import numpy as np

from shared.errors import PeerError
from shared.protocol import Mark, Status, TrainReply

LARGEST_MESSAGE_BYTES = 512 * 2**20
MESSAGE_SIZES = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
)


def write_reply(reply: TrainReply) -> bytes:
    """A reply as bytes: a line of JSON, then little-endian float32."""
    plain = {name: value for name, value in asdict(reply).items() if name != "update"}
    return json.dumps(plain, sort_keys=True).encode() + b"\n" + reply.update.astype("<f4").tobytes()


def read_reply(written: bytes) -> TrainReply:
    """Read what `write_reply` wrote.

    Raises:
        PeerError: it is something else.
    """
    head, _, update = written.partition(b"\n")
    try:
        plain = json.loads(head)
        plain |= {"status": Status(plain["status"]), "ledger": Mark(**plain["ledger"])}
        return TrainReply(**plain, update=np.frombuffer(update, "<f4").copy())
    except (ValueError, KeyError, TypeError):
        raise PeerError("Expected a written reply, got other bytes.") from None
