"""Which partition a simulated node holds: Flower's Ray engine tells only the node, so its ClientApp is asked."""

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from shared.errors import RunError


def tells_partition(app: ClientApp) -> ClientApp:
    """The same ClientApp, which answers a query with its partition."""

    @app.query()
    def tell(message: Message, context: Context) -> Message:
        told = ConfigRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"node": told}), reply_to=message)

    return app


def told_partition(reply: Message) -> int:
    """Read what it said.

    Raises:
        RunError: no number.
    """
    partition = reply.content.config_records["node"]["partition-id"]
    if not isinstance(partition, int):
        raise RunError(f"Expected a partition number, got {type(partition).__name__}.")
    return partition
