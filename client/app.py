"""The Flower ClientApp: message to trainer to reply, for simulations.

On a stock SuperNode this app refuses: there the server's code could run beside the data. Real nodes run the vault in
a process of its own.
"""

from collections.abc import Callable
from functools import partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.answer import Trainer, answer_task
from shared.protocol.messages import Status, TrainReply, TrainTask, without_update


def build_client_app(open_trainer: Callable[[Context, TrainTask], Trainer]) -> ClientApp:
    """Build a ClientApp that hands each task to the trainer that is opened for it."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(answer_task(message.content, partial(open_trainer, context)), reply_to=message)

    return app


class RefuseRealData:
    """Answers every task with a refusal.

    Guarantee: no dataset is ever opened by this app on a stock SuperNode.
    """

    def train(self, task: TrainTask) -> TrainReply:
        """Refuse."""
        return without_update(task, Status.REFUSED_REAL_DATA)


app = build_client_app(lambda _context, _task: RefuseRealData())
