"""The gateway with real TLS and client certificates, in front of Flower's real SuperLink behind its secret."""

import base64
import hashlib
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from client.link.fleet import Fleet, Received, Refused, tls_context
from client.link.membership import Membership, membership
from server.certificate_authority import create, issue_server, public_pem
from server.flower.control import Control
from server.flower.grid import drive_run
from server.flower.superlink import PRESENT_PATH, SECRET_HEADER
from server.gateway.process import tls_context as server_context
from server.settings import Home
from shared.protocol.flower_records import decode_offer_reply, decode_task, encode_offer_reply, encode_task
from shared.protocol.messages import OfferReply, Status, TrainTask
from simulations.e2e.certificates import expired_certificate
from simulations.e2e.federation import Federation

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("commands_in_this_process")]
CONTROL = ("/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/health")
POLICY = f'epsilon = 1.0\ndelta = 1e-6\ndeclared_size = 10\nmodels = ["{"0" * 64}"]\n'
FLEET = ("/v1/fleet/register-node", "/v1/fleet/pull-messages", "/v1/fleet/send-node-heartbeat")


@pytest.fixture(scope="module")
def member(federation: Federation) -> Membership:
    """An organisation that joined."""
    federation.make_node("at-the-gate", "text,label\n", POLICY)
    federation.enrol("at-the-gate")
    return membership(federation.folder / "at-the-gate" / "node" / "link")


@pytest.fixture
def inside(federation: Federation) -> Iterator[httpx.Client]:
    """On the server's machine."""
    with httpx.Client(base_url=f"http://127.0.0.1:{Home(federation.home).settings().superlink_port}") as client:
        yield client


def outside(federation: Federation, context: ssl.SSLContext) -> httpx.Client:
    return httpx.Client(base_url="https://{}:{}".format(*federation.address), verify=context, timeout=20.0)


def context_of(member: Membership) -> ssl.SSLContext:
    return tls_context(member.authority_path, member.certificate_path, member.key_path)


def key_header(member: Membership) -> dict[str, str]:
    return {"flwr-public-key": base64.b64encode(public_pem(member.key().public_key()).encode()).decode()}


@pytest.mark.guarantee("nothing of the SuperLink answers a request without the secret, also not on loopback.")
def test_control_and_runtime_answer_on_loopback_with_the_secret_alone(
    federation: Federation, inside: httpx.Client
) -> None:
    secret = Home(federation.home).secret()
    known = inside.post(CONTROL[0], headers={SECRET_HEADER: secret})
    assert known.status_code != 404, "the control: with the secret, Flower answers"
    for wrong in ({}, {SECRET_HEADER: "guess"}, [(SECRET_HEADER, secret), (SECRET_HEADER, secret)]):
        for path in (*CONTROL, *FLEET):
            assert inside.post(path, headers=wrong).status_code == 404
            assert inside.get(path, headers=wrong).status_code == 404
    kept = [path for path in Home(federation.home).keys.glob("*") if path.suffix in (".secret", ".key")]
    assert len(kept) == 4 and all(path.stat().st_mode & 0o077 == 0 for path in kept)


@pytest.mark.guarantee("no path outside the Fleet API reaches the SuperLink, however it is written.")
def test_control_and_runtime_are_closed_at_the_gate_to_a_member_too(federation: Federation, member: Membership) -> None:
    with outside(federation, context_of(member)) as client:
        assert [client.post(path, headers=key_header(member)).status_code for path in CONTROL] == [404] * 5
        assert [client.get(path, headers=key_header(member)).status_code for path in CONTROL] == [404] * 5


@pytest.fixture
def fleet(federation: Federation, member: Membership) -> Iterator[Fleet]:
    """The member's connection."""
    identity = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    connection = Fleet("{}:{}".format(*federation.address), member.key(), context_of(member))
    connection.activate(0)
    yield connection
    connection.close(deactivate=True)
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = identity


def test_the_fleet_api_says_the_same_to_a_member_as_inside(
    federation: Federation, member: Membership, fleet: Fleet, inside: httpx.Client
) -> None:
    secret = {SECRET_HEADER: Home(federation.home).secret()}
    request = SendNodeHeartbeatRequest(node=Node(node_id=fleet.node_id)).SerializeToString()
    headers = key_header(member) | {"content-type": "application/protobuf", "flwr-signature": "", "flwr-timestamp": ""}
    with outside(federation, context_of(member)) as client:
        through = client.post(FLEET[2], content=request, headers=headers)
        messages = client.post(FLEET[1], content=request, headers=headers)
    direct = inside.post(FLEET[2], content=request, headers=headers | secret)
    assert through.status_code == direct.status_code == 401 and through.content == direct.content, "no signature"
    assert messages.status_code == 401, "what the gateway answers by itself, too"
    assert fleet.receive() is None and fleet.heartbeat()


def test_flower_hears_who_waits_and_says_whom_it_knows(
    federation: Federation, fleet: Fleet, inside: httpx.Client
) -> None:
    control, somebody = Control(Home(federation.home)), str(fleet.node_id)
    before = time.time() + HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL
    assert control.present([fleet.node_id, fleet.node_id ^ 1]) == {fleet.node_id}
    assert before <= online_until(federation, fleet.node_id) <= before + 10.0, "as after a heartbeat"
    control.close()
    assert inside.post(PRESENT_PATH, content=somebody).status_code == 404, "without the secret"
    assert fleet.something_waits() and fleet.present_until == 0.0, "the first wait, of which Flower has not heard"


def online_until(federation: Federation, node: int) -> float:
    signed = node - 2**64 if node >= 2**63 else node
    with closing(sqlite3.connect(Home(federation.home).flower / "state.db")) as database:
        return float(database.execute("SELECT online_until FROM node WHERE node_id = ?", (signed,)).fetchone()[0])


def test_what_no_link_calls_does_not_reach_the_superlink(federation: Federation, member: Membership) -> None:
    with outside(federation, context_of(member)) as client:
        for path in ("/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/get-fab"):
            assert client.post(path, headers=key_header(member)).status_code == 404
        assert client.post(FLEET[1], content=b"\xff" * 9, headers=key_header(member)).status_code == 400


def test_an_answer_passes_only_as_one_of_its_own_node_and_of_its_studys_size(
    federation: Federation, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drive_run(Home(federation.home), update_bytes=20_000) as grid:
        tasks = [Message(RecordDict({"t": ConfigRecord({"n": n})}), fleet.node_id, "train", ttl=60) for n in range(4)]
        asked = dict.fromkeys(grid.push_messages(tasks))
        received = [fleet.receive() for _ in tasks]
        asked |= {one.message_id: one for one in received if one is not None}
        many, large, foreign, good = (one for one in asked.values() if one is not None)
        with pytest.raises(Refused, match="413"):
            fleet.reply(many, RecordDict({f"r{n}": ConfigRecord({"n": n}) for n in range(100)}))
        with pytest.raises(Refused, match="413"):
            fleet.reply(large, RecordDict({"r": ConfigRecord({"update": bytes(24_500)})}))
        with monkeypatch.context() as patch, pytest.raises(Refused, match="403"):
            patch.setattr("client.link.fleet.message_to_proto", from_another_node)
            fleet.reply(foreign, RecordDict({"r": ConfigRecord({"update": bytes(100)})}))
        fleet.confirm(good)
        fleet.reply(good, RecordDict({"r": ConfigRecord({"update": bytes(19_000)})}))
        (reply,) = grid.pull_messages(asked)
        assert (reply.metadata.src_node_id, reply.metadata.reply_to_message_id) == (fleet.node_id, good.message_id)


@pytest.mark.guarantee(
    "no other member knows the hash of anything in a reply before it is sent; sent again, it is the same."
)
@pytest.mark.guarantee("no member knows the hash of anything in a question before it is asked.")
def test_nobody_can_say_beforehand_what_is_in_anothers_message(federation: Federation, fleet: Fleet) -> None:
    # Flower keeps each object once, and refuses a second sender who differs on what is in it
    answer, task = encode_offer_reply(OfferReply("r-1", Status.APPROVED)), encode_task(first_task())
    guessed = [part for records in (answer, task) for part in (records, *records.values())]
    parts = [
        ObjectTree(object_id=it.object_id, children=[ObjectTree(object_id=other_id(it.object_id))]) for it in guessed
    ]
    with drive_run(Home(federation.home), update_bytes=20_000) as grid:
        asked = list(grid.push_messages([Message(RecordDict(), fleet.node_id, "query", ttl=60) for _ in range(3)]))
        first, second, third = (fleet.receive() for _ in asked)
        assert first is not None and second is not None and third is not None
        announce(fleet, first, parts[:2])
        announce(fleet, second, parts[2:])
        fleet.reply(third, answer)
        (reply,) = grid.pull_messages(asked)
        assert decode_offer_reply(reply.content).status is Status.APPROVED
        assert answer["stance"]["salt"] == fleet._salt(third.message_id) != fleet._salt(second.message_id)
        grid.push_messages([Message(task, fleet.node_id, "train", ttl=60)])
        received = fleet.receive()
        assert received is not None and decode_task(received.message().content).round == 1


@pytest.mark.guarantee(
    "a question has one answer: announced once more it is the same, so announcements fill no database."
)
def test_announcing_answers_again_and_again_stores_one(federation: Federation, fleet: Fleet) -> None:
    with drive_run(Home(federation.home), update_bytes=20_000) as grid:
        (asked,) = grid.push_messages([Message(RecordDict(), fleet.node_id, "query", ttl=60)])
        question = fleet.receive()
        assert question is not None
        fleet.reply(question, encode_offer_reply(OfferReply("r-1", Status.APPROVED)))
        before = rows_of_flower(federation)
        for number in range(5):
            with pytest.raises(httpx.HTTPStatusError, match="403"):
                announce(fleet, question, [ObjectTree(object_id=other_id(f"{number}"))])
            fleet.reply(question, encode_offer_reply(OfferReply("r-1", Status.APPROVED)))
        more = {
            table: rows - before[table] for table, rows in rows_of_flower(federation).items() if rows > before[table]
        }
        # Flower keeps what it wants of the announcement that came last
        assert more in ({}, {"object_push_sessions": 1, "object_push_session_roots": 1})
        assert len(list(grid.pull_messages([asked]))) == 1


def rows_of_flower(federation: Federation) -> dict[str, int]:
    with closing(sqlite3.connect(Home(federation.home).flower / "state.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}  # noqa: S608


def first_task() -> TrainTask:
    return TrainTask("a" * 64, "r-1", 1, np.zeros(3, np.float32))


def announce(fleet: Fleet, question: Received, parts: list[ObjectTree]) -> None:
    reply = Message(RecordDict(), reply_to=question.message())
    root = reply.metadata.__dict__["_message_id"] = other_id(question.message_id)
    proto = message_to_proto(reply)
    proto.content.Clear()
    request = PushMessagesRequest(
        node=Node(node_id=fleet.node_id),
        messages_list=[proto],
        message_object_trees=[ObjectTree(object_id=root, children=parts)],
    )
    assert fleet._client.PushMessages(request).session_id


def other_id(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()


def from_another_node(message: Message) -> ProtoMessage:
    proto = message_to_proto(message)
    proto.metadata.src_node_id += 1
    return proto


def test_a_reply_to_a_run_that_the_server_does_not_know_any_more_is_refused_for_good(
    federation: Federation, member: Membership
) -> None:
    task = Message(RecordDict(), 7, "train")
    objects = {name: part.deflate() for name, part in get_all_nested_objects(task).items()}
    fleet = Fleet("{}:{}".format(*federation.address), member.key(), context_of(member))
    fleet.activate(0)
    with pytest.raises(Refused, match="403"):
        fleet.reply(Received(task.object_id, 12345, objects), RecordDict())
    fleet.close(deactivate=True)


def test_without_a_certificate_of_its_own_nobody_passes(
    federation: Federation, member: Membership, tmp_path: Path
) -> None:
    nameless = tls_context(member.authority_path, tmp_path / "none", tmp_path / "none")
    with outside(federation, nameless) as client:
        assert client.post(FLEET[1], headers=key_header(member)).status_code == 401
    with outside(federation, context_of(member)) as client:
        assert client.post(FLEET[1]).status_code == 401, "the key that signs is the certificate's"
        stolen = {"flwr-public-key": base64.b64encode(b"another key").decode()}
        assert client.post(FLEET[1], headers=stolen).status_code == 401


def test_a_certificate_of_another_authority_is_no_certificate(
    federation: Federation, member: Membership, tmp_path: Path
) -> None:
    create(tmp_path, "stranger")
    forged = issue_server(tmp_path, ["127.0.0.1"])
    with (
        outside(federation, tls_context(member.authority_path, forged.certificate, forged.key)) as client,
        pytest.raises(httpx.HTTPError),
    ):
        client.post(FLEET[1])


def test_a_certificate_that_has_expired_is_no_certificate(
    federation: Federation, member: Membership, tmp_path: Path
) -> None:
    expired = tmp_path / "expired.crt"
    expired.write_bytes(expired_certificate(federation, "at-the-gate"))
    with (
        outside(federation, tls_context(member.authority_path, expired, member.key_path)) as client,
        pytest.raises(httpx.HTTPError),
    ):
        client.post(FLEET[1], headers=key_header(member))


def test_without_the_authority_there_is_no_connection(federation: Federation) -> None:
    with (
        outside(federation, ssl.create_default_context()) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.post(FLEET[1])


def test_old_tls_is_not_spoken(federation: Federation) -> None:
    assert server_context(Home(federation.home).keys).minimum_version >= ssl.TLSVersion.TLSv1_2
