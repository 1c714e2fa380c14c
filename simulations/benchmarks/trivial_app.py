"""A ClientApp that only answers: what is left of a round's time is the engine's."""

from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.app import build_client_app
from client.vault.vault import Trains
from shared.protocol import Status, TrainReply, TrainTask

LENGTH = 7000


class Echo:
    """Replies with a constant vector."""

    def train(self, task: TrainTask) -> TrainReply:
        """No training at all."""
        update = task.adapter + 1
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)


def _open(_context: Context, _task: TrainTask) -> Trains:
    return Echo()


app = build_client_app(_open)


@app.query()
def tell_partition(message: Message, context: Context) -> Message:
    """For the Ray engine."""
    told = ConfigRecord({"partition-id": int(context.node_config["partition-id"])})
    return Message(RecordDict({"node": told}), reply_to=message)
