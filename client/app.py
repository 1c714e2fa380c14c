"""The Flower ClientApp: message to vault to reply, for simulations.

On a stock SuperNode this app refuses: there the server's code could run beside the data. Real nodes run the vault in
a process of its own.
"""

from collections.abc import Callable

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.vault.training.round_trainer import Trainer
from shared.errors import PeerError, VersionError
from shared.protocol.flower_records import decode_task, encode_reply
from shared.protocol.messages import Status, TrainReply, TrainTask, without_update


def build_client_app(open_vault: Callable[[Context, TrainTask], Trainer]) -> ClientApp:
    """Wire a ClientApp to whatever answers a task."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        try:
            task = decode_task(message.content)
        except PeerError as error:
            code = Status.REFUSED_VERSION if isinstance(error, VersionError) else Status.REFUSED_STUDY
            return Message(encode_reply(_unreadable(code)), reply_to=message)
        reply = open_vault(context, task).train(task)
        return Message(encode_reply(reply, version=task.version), reply_to=message)

    return app


class RefuseRealData:
    """Answers every task with a refusal.

    Guarantee: no dataset is ever opened by this app on a stock SuperNode.
    """

    def train(self, task: TrainTask) -> TrainReply:
        """Refuse."""
        return without_update(task, Status.REFUSED_REAL_DATA)


def _unreadable(code: Status) -> TrainReply:
    return TrainReply("", "", 0, "", code, np.zeros(0, np.float32))


app = build_client_app(lambda _context, _task: RefuseRealData())
