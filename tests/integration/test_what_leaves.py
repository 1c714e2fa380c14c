"""Every byte that a node sends in a whole study, recorded at the link before TLS, against the closed list."""

import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_object_type_from_object_content
from flwr.supercore.task_identity import TaskIdentity

from client.link.loop import Link
from client.link.membership import membership
from client.settings import folders, load_node
from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from client.vault.training.trainer import PrivateTrainer
from server.rounds.participants import OFFER_LIFE_S
from shared.base_models.locate import find
from shared.errors import RunError
from shared.privacy.noise_schedule import declared_size
from shared.protocol.long_poll import NODE_HEADER, WAIT_PATH
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
)
from shared.protocol.update_encoding import Wire, packed_bytes
from shared.study.sections import Model
from simulations.e2e.federation import Federation, wait_until
from tests.support.ledgers import rows_of

pytestmark = pytest.mark.integration
PATHS = {
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "pull-object",
        "confirm-message-received",
        "push-messages",
        "push-object",
    )
}
HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "connection",
    "user-agent",
    "content-type",
    "content-length",
    "flwr-public-key",
    "flwr-signature",
    "flwr-timestamp",
    "flwr-package-name",
    "flwr-package-version",
    "flwr-component-name",
}
# Each is long, or holds a character that base64 has not: a signature of every request spells "loss" once in fifty runs.
SECRETS = [
    "wordprivate",
    "secretward",
    "records.csv",
    "loss 3.21",
    "accuracy",
    "Traceback",
    "RunError",
    "patient Anna",
    ".toml",
]
ROUNDS, DEADLINE_S = 4, 60


@dataclass(frozen=True)
class Sent:
    """One HTTP request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Listening:
    """The real vault, and what it answered."""

    def __init__(self, config: Path) -> None:
        self._config, self._node_vault = config, NodeVault(config)
        self.statuses: list[Status] = []
        self.floats = 0

    def train(self, task: TrainTask) -> TrainReply:
        reply = self._node_vault.train(task)
        self.statuses.append(reply.status)
        if reply.status is Status.FAILED:  # its operator looks at once
            with open_node(self._config).open_ledger() as ledger:
                ledger.resume(task.study_run, [task.round])
        self.floats = len(task.adapter)
        return reply

    def offer(self, offer: StudyOffer) -> OfferReply:
        return self._node_vault.offer(offer)

    def leg(self, task: LegTask) -> LegReply:
        return self._node_vault.leg(task)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        return self._node_vault.evaluate(task)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training fails in the second round with a message that would tell everything."""
    honest, rounds = PrivateTrainer.train_round, count(1)

    def train_round(self: PrivateTrainer, *arguments: Any, **named: Any) -> Any:
        if next(rounds) == 2:
            raise RunError("patient Anna: loss 3.21 in records.csv")
        return honest(self, *arguments, **named)

    monkeypatch.setattr(PrivateTrainer, "train_round", train_round)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, bytearray]]:
    """Bytes by connection, as this process gives them to TLS."""
    recorded: dict[int, bytearray] = defaultdict(bytearray)
    really = {"send": ssl.SSLSocket.send, "sendall": ssl.SSLSocket.sendall}

    def recording(name: str) -> Any:
        def send(self: ssl.SSLSocket, data: Any, *rest: Any) -> Any:
            sent = really[name](self, data, *rest)
            recorded[id(self)] += bytes(data[:sent] if name == "send" else data)
            return sent

        return send

    # sendall is written in terms of send
    monkeypatch.setattr(ssl.SSLSocket, "send", recording("send"))
    identity = TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id
    yield recorded
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = identity


def requests_in(stream: bytes) -> list[Sent]:
    found = []
    while stream:
        head, _, rest = stream.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        assert "transfer-encoding" not in headers and len(rest) >= length
        found.append(Sent(first.split()[1], headers, rest[:length]))
        stream = rest[length:]
    return found


@pytest.fixture(params=["float32", "int8"])
def encoding(request: pytest.FixtureRequest) -> Wire:
    """How updates travel."""
    found: Wire = request.param
    return found


@pytest.fixture
def node(encoding: Wire) -> str:
    """The node's name, which is a secret as well."""
    return f"secretward-{encoding}"


@pytest.fixture
def study(federation: Federation, node: str, encoding: Wire, tiny_bert: Path, tmp_path: Path) -> str:
    """A node with private words and a study that wants it; returns the run."""
    rows = [f"wordprivate{i} {'good' if i % 2 else 'bad'},{'yes' if i % 2 else 'no'}" for i in range(60)]
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    policy = f'epsilon = 5.0\ndelta = 1e-5\ndeclared_size = {declared_size(54)}\nmodels = ["{fingerprint}"]\n'
    federation.make_node(
        node,
        "text,label\n" + "\n".join(rows) + "\n",
        policy + "smallest_cohort = 1\napproval = 'within-policy'\n",
        node=f'models = "{tiny_bert.parent}"',
    )
    federation.enrol(node)
    federation.node(node, "register", "ward")
    (tmp_path / "study.toml").write_text(f"""
[study]
name = "what leaves"
[model]
source = "{tiny_bert}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 16
[training]
local_steps = 2
learning_rate = 0.01
[federation]
rounds = {ROUNDS}
quorum = 1
deadline_s = {DEADLINE_S}
smallest_declared_size = 10
wire = "{encoding}"
""")
    return federation.start_study(tmp_path / "study.toml")


@pytest.mark.guarantee("a node sends packed updates, protocol fields and typed codes, and nothing else.")
@pytest.mark.guarantee(
    "a reply says nothing of how long it took: it bears its task's own moment, and one constant run time."
)
@pytest.mark.usefixtures("trouble")
def test_the_whole_wire_of_a_whole_study(
    federation: Federation, study: str, node: str, encoding: Wire, wire: dict[int, bytearray]
) -> None:
    config = federation.config(node)
    places, vault, stop = folders(config, load_node(config)), Listening(config), threading.Event()
    member = membership(places.link)
    link = Link(
        lambda: member.connect(load_node(config).server, config.parent),
        vault,
        places.link,
        server=member.server,
        node_id=member.node_id,
        stop=stop,
    )
    running = threading.Thread(target=link.run)
    running.start()
    try:
        wait_until(lambda: federation.run(study)["state"] == "finished", "the study is finished")
    finally:
        stop.set()
        running.join(30)
    assert vault.statuses == [Status.TRAINED, Status.FAILED, Status.TRAINED, Status.TRAINED]
    with open_node(config).open_ledger() as ledger:
        entered = [(row["kind"], row.get("round")) for row in rows_of(ledger)]
    paid = [(kind, number) for number in range(1, ROUNDS + 1) for kind in ("reserve", "commit")]
    paid[3:4] = [("fail", 2), ("commit", 2), ("resume", None)]
    assert entered == [("register", None), ("approve", None), *paid], "the failure is paid for as the updates are"
    history = federation.run(study)["history"]
    assert [record["outcome"] for record in history] == ["aggregated", "lost", "aggregated", "aggregated"]

    sent = [request for stream in wire.values() for request in requests_in(bytes(stream))]
    everything = b"".join(bytes(stream) for stream in wire.values()).lower()
    for secret in (*SECRETS, str(federation.folder)):
        assert secret.lower().encode() not in everything, secret
    assert {request.path for request in sent} <= {*PATHS, WAIT_PATH}
    assert {request.body for request in sent if request.path == WAIT_PATH} == {b""}, "waiting says nothing"
    waits = [request for request in sent if request.path == WAIT_PATH]
    assert {request.headers[NODE_HEADER] for request in waits} == {str(member.node_id)}, "the server's own name for it"
    others = [name for request in sent for name in request.headers if request.path != WAIT_PATH or name != NODE_HEADER]
    assert set(others) <= HEADERS
    _check_messages([request.body for request in sent if request.path.endswith("push-messages")])
    objects = [request.body for request in sent if request.path.endswith("push-object")]
    _check_objects(objects, update_bytes=packed_bytes(vault.floats, encoding))


def _check_messages(bodies: list[bytes]) -> None:
    sizes = defaultdict(set)
    for body in bodies:
        request = PushMessagesRequest.FromString(body)
        assert list(request.clientapp_runtime_list) == [0.0]
        (proto,) = request.messages_list
        message = message_from_proto(proto)
        sizes[message.metadata.message_type].add(len(body))
        assert not message.has_error() and not message.content
        # the task's own: Flower takes the time that has passed from it
        assert message.metadata.ttl == 2 * DEADLINE_S == OFFER_LIFE_S
    assert set(sizes) == {"train", "query"} and len(sizes["train"]) == 1, "every reply of a study has the same length"


def _check_objects(bodies: list[bytes], *, update_bytes: int) -> None:
    kinds: dict[str, set[int]] = defaultdict(set)
    fields, updates = set[str](), set[int]()
    for body in bodies:
        pushed = PushObjectRequest.FromString(body)
        kind = get_object_type_from_object_content(pushed.object_content)
        kinds[kind].add(len(pushed.object_content))
        if kind == "ConfigRecord":
            record = ConfigRecord.inflate(pushed.object_content)
            fields |= set(record)
            updates |= {len(value) for value in record.values() if isinstance(value, bytes)}
    assert set(kinds) == {"Message", "RecordDict", "ConfigRecord"}
    assert fields == {
        "protocol-version",
        "oldest-version",
        "newest-version",
        "study-sha256",
        "study-run",
        "round",
        "base-sha256",
        "status",
        "declared-size",  # public
        "height",
        "head",
        "mac",
        "update",
        "salt",  # made of the node's key and the question's id
    }
    # an update, and the zeros of a failure, are as long as each other
    assert updates == {update_bytes}
    assert len(kinds["ConfigRecord"]) == 2, "a reply and a stance, each of one length"
