"""Asking a vault over its operator's socket."""

from pathlib import Path
from typing import Any

import grpc

from client.operator_api.messages import OPTIONS, Question, path, read, write
from shared.errors import FedVaultError, RunError

TIMEOUT_S = 60.0


class Refused(FedVaultError):  # noqa: N818 - the vault's own words for what it cannot do
    """The vault answered with an error of its own."""


class OperatorClient:
    """One vault behind its operator's socket.

    Args:
        socket: where the vault listens for its operator.
        timeout_s: for one answer.
    """

    def __init__(self, socket: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._socket, self._timeout_s = socket, timeout_s
        options = (*OPTIONS, ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000))
        self._channel = grpc.insecure_channel(f"unix:{socket.resolve()}", options=options)

    def ask(self, question: Question, **arguments: Any) -> dict[str, Any]:
        """Return the vault's answer.

        Raises:
            RunError: no vault answers there.
            Refused: it does, with an error.
        """
        call = self._channel.unary_unary(path(question), request_serializer=write, response_deserializer=read)
        try:
            answer: dict[str, Any] = call(arguments, timeout=self._timeout_s)
        except grpc.RpcError:
            raise RunError(
                f"Expected the vault to answer at {self._socket}, it does not.",
                hint="Start the node: fedvault-node start. Only the vault's own user may ask.",
            ) from None
        if "error" in answer:
            raise Refused(answer["error"], hint=answer["hint"])
        return answer

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
