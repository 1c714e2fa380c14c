"""A ClientApp that only answers: what is left of a round's time is the engine's."""

from flwr.app import Context

from client.answer import Trainer
from client.app import build_client_app
from shared.protocol.messages import Status, TrainReply, TrainTask
from simulations.engines.partition_query import with_partition_query

LENGTH = 7000


class Echo:
    """Replies with a constant vector."""

    def train(self, task: TrainTask) -> TrainReply:
        """Answer without any training."""
        update = task.adapter + 1
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)


def _open(_context: Context, _task: TrainTask) -> Trainer:
    return Echo()


app = with_partition_query(build_client_app(_open))
