"""Our Grid over a SuperLink that announces replies before their bytes are there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto, run_from_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from server.flower import grid as flower
from server.flower.grid import Arriving, GuardedGrid
from server.flower.patience import FlowerAwayError, Patience
from server.flower.reply_size import (
    BESIDE_UPDATE_BYTES,
    WITHOUT_RUN_BYTES,
    largest_object_bytes,
    publish_update_bytes,
    withdraw_update_bytes,
)
from server.rounds.update_filter import Reason, Rejected, inspect
from server.settings import Home
from shared.errors import RunError
from shared.protocol.messages import TrainTask

LARGEST_OBJECT = 1000
TASK = TrainTask("s" * 64, "r-1", 1, np.zeros(3, np.float32))


class Superlink:
    """Announces each reply once; hands out the objects that have come."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[Any, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.known: set[str] = set()
        self.confirmed: list[str] = []
        self.pulled: list[str] = []
        self.takes_s = 0.0

    def reply(
        self, question: str, node: int, *, comes: bool = True, claims: int | None = None, records: int = 1
    ) -> None:
        """A node answers; `claims` is who the reply's own bytes say it is from."""
        asked = Message(RecordDict({"q": ConfigRecord({"q": question})}), node, "train")
        asked.metadata.__dict__["_message_id"] = question
        written = Message(
            RecordDict({f"a{i}": ConfigRecord({"node": node + i}) for i in range(records)}), reply_to=asked
        )
        written.metadata.__dict__["_src_node_id"] = node if claims is None else claims
        message_id = written.object_id
        written.metadata.__dict__["_message_id"] = message_id
        with no_object_id_recompute():
            objects = {name: part.deflate() for name, part in get_all_nested_objects(written).items()}
            tree = get_object_tree(written)
        written.metadata.__dict__["_src_node_id"] = node
        self.replies[question] = message_to_proto(remove_content_from_message(written)), tree
        self.known |= objects.keys()
        if comes:
            self.objects |= objects
        self.late = {} if comes else objects

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        replies = [self.replies.pop(question) for question in list(request.message_ids) if question in self.replies]
        return PullAppMessagesResponse(
            messages_list=[message for message, _ in replies], message_object_trees=[tree for _, tree in replies]
        )

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802 - Flower's name
        time.sleep(self.takes_s)
        self.pulled.append(request.object_id)
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=request.object_id in self.known,
            object_available=content is not None,
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802 - Flower's name
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def superlink() -> Superlink:
    return Superlink()


@pytest.fixture
def grid(superlink: Superlink, tmp_path: Path) -> GuardedGrid:
    made = GuardedGrid("127.0.0.1:1", "token", Home(tmp_path), largest_object_bytes=LARGEST_OBJECT)
    vars(made)["_client"] = superlink
    made.set_run(run_from_proto(Run(run_id=5)))
    return made


def nodes(grid: GuardedGrid, *questions: str) -> list[int]:
    """The senders of replies that can be read."""
    return [reply.metadata.src_node_id for reply in grid.pull_messages(questions) if reply.has_content()]


def verdicts(grid: GuardedGrid, *questions: str) -> dict[int, Any]:
    """What the update filter says of replies that cannot be used, by sender."""
    replies = [reply for reply in grid.pull_messages(questions) if not reply.has_content()]
    return {reply.metadata.src_node_id: inspect(reply, TASK, largest_norm=1.0) for reply in replies}


@pytest.mark.guarantee("a reply that never arrives in full delays no other node's reply.")
def test_a_reply_that_stops_in_the_middle_holds_up_nobody(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11, comes=False)
    late = superlink.late
    superlink.reply("question-2", 12)
    assert nodes(grid, "question-1", "question-2") == [12]
    assert nodes(grid, "question-1") == []
    superlink.objects |= late
    assert nodes(grid, "question-1") == [11]
    assert len(superlink.confirmed) == 2


def test_two_callers_do_not_take_each_others_replies(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11, comes=False)
    late = superlink.late
    assert nodes(grid, "question-1") == []
    superlink.reply("question-2", 12)
    assert nodes(grid, "question-2") == [12]
    superlink.objects |= late
    assert nodes(grid, "question-1") == [11]


def test_what_nobody_asks_for_any_more_is_forgotten(
    superlink: Superlink, grid: GuardedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    superlink.reply("question-1", 11, comes=False)
    assert nodes(grid, "question-1") == []
    monkeypatch.setattr(flower, "FORGOTTEN_AFTER_S", 0.0)
    assert nodes(grid, "question-2") == []
    assert grid._arriving == {}


def test_a_reply_is_from_whom_the_superlink_says_not_from_whom_it_says_itself(
    superlink: Superlink, grid: GuardedGrid
) -> None:
    superlink.reply("question-1", 11, claims=12)
    assert nodes(grid, "question-1") == [11]


def test_bytes_that_are_no_message_count_as_their_nodes_failure(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11)
    superlink.objects = dict.fromkeys(superlink.objects, b"Message \x00nonsense")
    superlink.reply("question-2", 12)
    assert verdicts(grid, "question-1") == {11: Rejected(Reason.MALFORMED)}
    assert nodes(grid, "question-2") == [12]


@pytest.mark.guarantee("a reply is weighed before it is read: by the number of its objects, and by the size of each.")
def test_a_reply_of_too_many_objects_is_not_pulled(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11, records=2500)
    superlink.reply("question-2", 12)
    assert verdicts(grid, "question-1", "question-2") == {11: Rejected(Reason.OVERSIZED)}
    assert len(superlink.pulled) == 3, "the other reply's"


def test_an_object_that_is_too_large_is_not_read_beyond_its_headers(tmp_path: Path) -> None:
    content, read = b"x" * (LARGEST_OBJECT + 2 * BESIDE_UPDATE_BYTES), list[int]()

    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            read.append(len(content))
            yield content

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/pull-object"):
            return httpx.Response(200)
        assert request.extensions["timeout"]["read"] == flower.PULL_TIMEOUT_S
        return httpx.Response(200, headers={"content-length": str(len(content))}, stream=Body())

    grid = over(answer, tmp_path)
    for ids in (["a"], ["b", "c"]):
        arriving = Arriving(metadata_of(11), ids, {}, 0.0)
        message = grid._pulled(arriving)
        assert message is not None
        assert inspect(message, TASK, largest_norm=1.0) == Rejected(Reason.OVERSIZED)
    assert read == []


def over(answer: Callable[[httpx.Request], httpx.Response], folder: Path) -> GuardedGrid:
    """A grid whose every request is answered here."""
    home = Home(folder)
    home.config.write_text('hosts = ["localhost"]\n')
    grid = GuardedGrid("127.0.0.1:1", "token", home, largest_object_bytes=LARGEST_OBJECT)
    grid.set_run(run_from_proto(Run(run_id=5)))
    grid._connect()
    client = grid._runtime_client._client
    client._transport = httpx.MockTransport(answer)
    return grid


def metadata_of(node: int) -> Metadata:
    return Metadata(5, "reply", node, 1, "question", "", 0.0, 1.0, "train")


@pytest.mark.parametrize("trouble", [500, 503, httpx.ConnectError("gone"), httpx.ReadTimeout("locked")])
def test_a_reply_is_waited_for_while_flower_cannot_hand_it_out(trouble: Any, tmp_path: Path) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        if isinstance(trouble, Exception):
            raise trouble
        return httpx.Response(trouble)

    grid, begin = over(answer, tmp_path), time.monotonic()
    assert grid._pulled(Arriving(metadata_of(11), ["a"], {}, 0.0)) is None
    assert time.monotonic() - begin < 5.0, "and its deadline is looked at in between"


def test_whoever_waits_looks_at_the_time_between_slow_replies(
    superlink: Superlink, grid: GuardedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "PULL_FOR_S", 0.02)
    superlink.takes_s = 0.03
    for number in range(3):
        superlink.reply(f"question-{number}", 11 + number)
    questions = [f"question-{number}" for number in range(3)]
    pulled = [nodes(grid, *questions) for _ in questions]
    assert sorted(node for slice_ in pulled for node in slice_) == [11, 12, 13] and max(map(len, pulled)) == 1


@pytest.mark.guarantee("an error of Flower's never ends the process of a run with a traceback.")
@pytest.mark.parametrize("call", ["get_node_ids", "push_messages", "pull_messages"])
@pytest.mark.parametrize("status", [401, 403, 500, 200])
def test_whatever_flower_answers_is_an_error_that_can_be_read(call: str, status: int, tmp_path: Path) -> None:
    # 401 would make Flower's own repeater interrupt this process; the bytes of the 200 are no answer
    grid = over(lambda _request: httpx.Response(status, content=b"\xff\xff"), tmp_path)
    grid._retry_invoker.longest_s = 0.0
    with pytest.raises(RunError, match="Expected Flower"):
        if call == "get_node_ids":
            grid.get_node_ids()
        elif call == "push_messages":
            grid.push_messages([question_for(7)])
        else:
            list(grid.pull_messages(["question"]))


def question_for(node: int) -> Message:
    return make_message(metadata_of(node), RecordDict())


def test_a_server_that_is_back_in_time_was_never_away() -> None:
    now, answers = [0.0], iter([503, 500, 200])

    def wait(seconds: float) -> None:
        now[0] += seconds

    def call() -> int:
        response = httpx.Response(next(answers), request=httpx.Request("POST", "http://flower"))
        return response.raise_for_status().status_code

    assert Patience(60.0, clock=lambda: now[0], wait=wait).invoke(call) == 200 and now[0] < 1.0
    answers = iter([503] * 1000)
    with pytest.raises(FlowerAwayError, match="503"):
        Patience(60.0, clock=lambda: now[0], wait=wait).invoke(call)
    assert 60.0 <= now[0] < 62.0


def test_the_largest_object_follows_from_the_run_that_is_driven(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.flower.mkdir()
    assert largest_object_bytes(home) == WITHOUT_RUN_BYTES
    publish_update_bytes(home, 10**6)
    assert 10**6 < largest_object_bytes(home) < 1.01 * 10**6
    withdraw_update_bytes(home)
    assert largest_object_bytes(home) == WITHOUT_RUN_BYTES
