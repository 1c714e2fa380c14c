"""One round of Flower's own SecAgg+ in this process: its workflow and its mod, between which messages are handed over.

Both are used as they are: `SecAggPlusWorkflow` asks, `secaggplus_mod` answers, four stages a round. Messages are
written and read as Protobuf between the two, which is not timed, and counted in bytes.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

RUN_ID = 1


@dataclass
class Costs:
    """The costs of one round."""

    node_s: float = 0.0
    """CPU seconds of a node, the mean over all."""
    server_s: float = 0.0
    """CPU seconds of the server."""
    sent_bytes: float = 0.0
    """What a node sends, the vector included."""
    received_bytes: float = 0.0
    """What a node receives; the model, which comes with or without a secure sum, is left out."""


def measured(nodes: int, threshold: int, vectors: list[NDArray[np.float64]]) -> tuple[Costs, NDArray[np.float64]]:
    """Run one round of as many nodes as there are vectors; return its costs, and the mean that the server opened."""
    for name in ("flwr", "flower"):
        logging.getLogger(name).setLevel(logging.ERROR)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 0
    grid, strategy = _Grid(vectors), _Everybody(nodes)
    state = RecordDict({MAIN_PARAMS_RECORD: ArrayRecord(), MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1})})
    plain = Context(run_id=RUN_ID, node_id=0, node_config={}, state=state, run_config={})
    context = LegacyContext(plain, strategy=strategy, client_manager=SimpleClientManager())
    started = time.process_time()
    SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=threshold / nodes)(cast(Any, grid), context)
    server_s = time.process_time() - started - grid.spent_s
    costs = Costs(grid.node_s / nodes, server_s, grid.sent_bytes / nodes, grid.received_bytes / nodes)
    return costs, strategy.opened


class _Grid:
    """Hands messages to nodes in this process, and their answers back."""

    def __init__(self, vectors: list[NDArray[np.float64]]) -> None:
        self.node_s = self.spent_s = 0.0
        self.sent_bytes = self.received_bytes = 0
        self._vectors = vectors
        self._contexts = {
            number: Context(run_id=RUN_ID, node_id=number, node_config={}, state=RecordDict(), run_config={})
            for number in range(1, len(vectors) + 1)
        }

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Answer each message by its node."""
        del timeout
        began = time.process_time()
        replies = [self._answered(message) for message in messages]
        self.spent_s += time.process_time() - began
        return replies

    def _answered(self, message: Message) -> Message:
        message, length = _carried(message)
        self.received_bytes += length
        number = message.metadata.dst_node_id
        parameters = ndarrays_to_parameters([self._vectors[number - 1]])

        def fit(asked: Message, _context: Context) -> Message:
            result = FitRes(Status(Code.OK, ""), parameters, num_examples=1000, metrics={})
            return Message(fitres_to_recorddict(result, keep_input=True), reply_to=asked)

        started = time.process_time()
        reply = secaggplus_mod(message, self._contexts[number], fit)
        self.node_s += time.process_time() - started
        reply, length = _carried(reply)
        self.sent_bytes += length
        return reply


class _Proxy:
    """What the workflow asks of a node's proxy: its number."""

    def __init__(self, number: int) -> None:
        self.node_id, self.cid = number, str(number)


class _Everybody(FedAvg):
    """Asks every node, and keeps what was opened."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self._nodes = nodes
        self.opened: NDArray[np.float64] = np.empty(0)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
        """Ask all nodes, without a model."""
        del server_round, parameters, client_manager
        return [(_Proxy(number), FitIns(ndarrays_to_parameters([]), {})) for number in range(1, self._nodes + 1)]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keep the opened mean, which each result holds."""
        del server_round, failures
        (self.opened,) = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}


def _carried(message: Message) -> tuple[Message, int]:
    """Return a message as its receiver reads it, and its length."""
    proto = message_to_proto(message)
    encoded = proto.SerializeToString()
    return message_from_proto(type(proto).FromString(encoded)), len(encoded)
