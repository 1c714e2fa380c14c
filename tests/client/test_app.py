"""The Flower app that a stock SuperNode would start."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.app import app
from shared.protocol.flower_records import decode_reply, encode_task
from shared.protocol.messages import Status, TrainTask

CONTEXT = Context(run_id=1, node_id=1, node_config={"partition-id": 0}, state=RecordDict(), run_config={})


@contextmanager
def files_opened() -> Iterator[list[str]]:
    opened: list[str] = []
    watching = [True]
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if watching and event == "open" else None)
    try:
        yield opened
    finally:
        watching.clear()


@pytest.mark.guarantee("no dataset is ever opened by this app on a stock SuperNode.")
def test_the_stock_app_refuses_and_opens_nothing() -> None:
    message = Message(encode_task(TrainTask("s" * 64, "run", 1, np.ones(3, np.float32))), 1, "train")
    app(message, CONTEXT)  # whatever is imported late is now imported
    with files_opened() as opened:
        reply = decode_reply(app(message, CONTEXT).content)
    assert opened == []
    assert reply.status is Status.REFUSED_REAL_DATA
    assert reply.update.tolist() == [0, 0, 0]


def test_an_unreadable_task_is_answered_not_raised() -> None:
    message = Message(RecordDict({"task": ConfigRecord({"protocol-version": 99})}), 1, "train")
    assert decode_reply(app(message, CONTEXT).content).status is Status.REFUSED_VERSION
    assert decode_reply(app(Message(RecordDict(), 1, "train"), CONTEXT).content).status is Status.REFUSED_STUDY
