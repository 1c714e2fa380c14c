"""Questions of the operator's page, and answers, as JSON over gRPC: no code is generated for so little."""

import json
from typing import Any, Literal, get_args

SERVICE = "fedvault.Operator"
Question = Literal["overview", "activity", "studies", "review", "decide", "ledger", "trial", "begin_trial", "resume"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
MOST_BYTES = 8 * 1024 * 1024
OPTIONS = (("grpc.max_receive_message_length", MOST_BYTES), ("grpc.max_send_message_length", MOST_BYTES))
LOOK = "review"
"""A job that only looks."""


def write(plain: Any) -> bytes:
    """Return a question's arguments, or an answer, as bytes."""
    return json.dumps(plain).encode()


def read(content: bytes) -> Any:
    """Return what `write` wrote.

    Raises:
        ValueError: it is no JSON.
    """
    return json.loads(content)


def path(question: str) -> str:
    """Return the name of a question's method."""
    return f"/{SERVICE}/{question}"
