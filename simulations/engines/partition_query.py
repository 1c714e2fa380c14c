"""Ask a simulated node for its partition, which Flower's Ray engine names to nobody else."""

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from shared.errors import RunError


def with_partition_query(app: ClientApp) -> ClientApp:
    """Make a ClientApp answer queries with its partition."""

    @app.query()
    def partition(message: Message, context: Context) -> Message:
        record = ConfigRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"node": record}), reply_to=message)

    return app


def read_partition(reply: Message) -> int:
    """Read the partition from a node's answer.

    Raises:
        RunError: no number.
    """
    partition = reply.content.config_records["node"]["partition-id"]
    if not isinstance(partition, int):
        raise RunError(f"Expected a partition number, got {type(partition).__name__}.")
    return partition
