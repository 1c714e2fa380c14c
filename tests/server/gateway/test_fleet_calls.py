"""Each field that names something is changed, one by one: the SuperLink sees none of it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Metadata, ObjectTree
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from server.flower.reply_size import MOST_OBJECTS
from server.gateway.fleet_calls import FLEET_API, CallRefused, FleetCalls
from server.gateway.handed_out import PER_NODE, HandedOut
from tests.support.fleet_in_memory import Forwarded, Superlink, make_node, node_named, whole_life

LARGEST_OBJECT = 2000
PARTS = "message_object_trees.children"
FIELDS = {
    "activate-node": "public_key heartbeat_interval",
    "deactivate-node": "node_id",
    "send-node-heartbeat": "node node.node_id heartbeat_interval",
    "pull-messages": "node node.node_id message_ids",
    "pull-object": "node node.node_id run_id object_id",
    "confirm-message-received": "node node.node_id run_id message_object_id",
    "get-run": "node node.node_id run_id",
    "push-messages": "node node.node_id messages_list messages_list.metadata messages_list.content messages_list.error "
    "messages_list.metadata.run_id messages_list.metadata.message_id messages_list.metadata.src_node_id "
    "messages_list.metadata.dst_node_id messages_list.metadata.reply_to_message_id messages_list.metadata.group_id "
    "messages_list.metadata.ttl messages_list.metadata.message_type messages_list.metadata.created_at "
    "messages_list.metadata.src_task_id messages_list.metadata.dst_task_id message_object_trees "
    "message_object_trees.object_id message_object_trees.children clientapp_runtime_list",
    "push-object": "node node.node_id run_id object_id object_content session_id",
}
"""Every field of every call. One that Flower adds must be looked at: does it name something?"""


class Scene(NamedTuple):
    """Two nodes that have answered a question each."""

    calls: FleetCalls
    mine: list[Forwarded]
    others: list[Forwarded]


@pytest.fixture(autouse=True)
def _identity() -> Iterator[None]:
    """Links say in a place of the whole process who they are."""
    identity = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    yield
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = identity


@pytest.fixture
def scene() -> Scene:
    calls, superlink = FleetCalls(HandedOut(), lambda: LARGEST_OBJECT), Superlink()
    lives = []
    for name, number, run in (("ward-7", 7, 50), ("harbour", 9, 60)):
        superlink.ask(number, run)
        lives.append(whole_life(*make_node(name, number), calls, superlink))
    return Scene(calls, *lives)


def one(life: list[Forwarded], name: str) -> Forwarded:
    return next(call for call in life if call.path == FLEET_API + name)


def refused(calls: FleetCalls, call: Forwarded, request: Any) -> int | None:
    """The status with which a request in place of an honest one is refused."""
    try:
        calls.read(call.node, call.path, request.SerializeToString())
    except CallRefused as error:
        return error.status
    return None


def changed(message: Any, values: list[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a message in every other form, with the field's path: one at a time."""
    for field in message.DESCRIPTOR.fields:
        name, place = field.name, f"{path}{field.name}"
        if field.message_type is not None and not repeated(field):
            yield place, cleared(message, name)
            for inner, part in changed(getattr(message, name), values, f"{place}."):
                yield inner, with_part(message, name, part)
        elif repeated(field):
            yield place, cleared(message, name)
            yield from ((place, longer) for longer in lengthened(message, field, values))
            if field.message_type is not None:
                for index, element in enumerate(getattr(message, name)):
                    for inner, part in changed(element, values, f"{place}."):
                        other = copied(message)
                        getattr(other, name)[index].CopyFrom(part)
                        yield inner, other
        else:
            for value in suitable(field, values):
                other = copied(message)
                setattr(other, name, value)
                yield place, other


def repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def copied(message: Any) -> Any:
    other = type(message)()
    other.CopyFrom(message)
    return other


def cleared(message: Any, name: str) -> Any:
    other = copied(message)
    other.ClearField(name)
    return other


def with_part(message: Any, name: str, part: Any) -> Any:
    other = copied(message)
    getattr(other, name).CopyFrom(part)
    return other


def lengthened(message: Any, field: FieldDescriptor, values: list[Any]) -> Iterator[Any]:
    if field.message_type is None:
        for value in suitable(field, values):
            other = copied(message)
            getattr(other, field.name).append(value)
            yield other
        return
    other = copied(message)
    getattr(other, field.name).add()
    yield other
    for element in list(getattr(message, field.name)):
        other = copied(message)
        getattr(other, field.name).append(element)
        yield other


def suitable(field: FieldDescriptor, values: list[Any]) -> list[Any]:
    kind = {
        field.CPPTYPE_STRING: bytes if field.type == field.TYPE_BYTES else str,
        field.CPPTYPE_DOUBLE: float,
    }.get(field.cpp_type, int)
    found = [value for value in values if type(value) is kind]
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM):
        return [value for value in found if value < 2**31]
    return found


def values_of(scene: Scene) -> list[Any]:
    """Whatever a node could put into a field: names of its own things, of another's, of nobody's, and nonsense."""
    found: set[Any] = {0, 1, 7, 9, 50, 60, 2**64 - 1, "", "x", "train", hashlib.sha256(b"mine").hexdigest()}
    found |= {b"", b"x", -1.0, 0.0, 1e9, float("nan")}
    for call in (*scene.mine, *scene.others):
        found |= set(scalars(call.asked))
    return sorted(found, key=repr)


def scalars(message: Any) -> Iterator[Any]:
    for field, value in message.ListFields():
        for part in value if repeated(field) else [value]:
            if field.message_type is None:
                yield part
            else:
                yield from scalars(part)


def names_of(descriptor: Descriptor, path: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        yield f"{path}{field.name}"
        inner = field.message_type
        # content and errors are refused whole, and a tree's children are trees
        if inner is not None and inner is not descriptor and inner.name not in ("RecordDict", "Error"):
            yield from names_of(inner, f"{path}{field.name}.")


def test_every_field_of_every_call_has_been_looked_at(scene: Scene) -> None:
    calls = {call.path.removeprefix(FLEET_API): call.asked for call in scene.mine}
    assert {name: set(names_of(asked.DESCRIPTOR)) for name, asked in calls.items()} == {
        name: set(fields.split()) for name, fields in FIELDS.items()
    }


@pytest.mark.guarantee(
    "what reaches the SuperLink or the mailbox names the certificate's node, and messages, runs and objects of its "
    "own alone."
)
def test_a_changed_field_is_refused_or_reaches_nobody(scene: Scene) -> None:
    values, tried = values_of(scene), 0
    questions = {part.object_id for call in scene.others if call.path.endswith("pull-object") for part in [call.asked]}
    for call in scene.mine:
        assert scene.calls.read(call.node, call.path, call.asked.SerializeToString()).body == call.body, "asked again"
        for place, request in changed(call.asked, values):
            tried += 1
            try:
                body = scene.calls.read(call.node, call.path, request.SerializeToString()).body
            except CallRefused:
                continue
            if place.startswith(PARTS):
                # an answer's own parts, under hashes of what they hold: anything but a part of a question
                tree = PushMessagesRequest.FromString(body).message_object_trees[0]
                assert not questions & set(ids_of(tree))
            elif place == "object_id" and call.path.endswith("pull-object"):
                assert request.object_id in {part.asked.object_id for part in scene.mine if part.path == call.path}
            else:
                assert body == call.body, f"{call.path}: {place}"
    assert tried > 500


def ids_of(tree: ObjectTree) -> list[str]:
    return [tree.object_id, *(name for child in tree.children for name in ids_of(child))]


def test_a_node_answers_for_itself_alone(scene: Scene) -> None:
    mine, theirs = one(scene.mine, "push-messages"), one(scene.others, "push-messages")
    assert refused(scene.calls, mine, theirs.asked) == 401
    for name in ("src_node_id", "reply_to_message_id", "run_id"):
        request = copied(mine.asked)
        setattr(request.messages_list[0].metadata, name, getattr(theirs.asked.messages_list[0].metadata, name))
        assert refused(scene.calls, mine, request) == 403, "the link drops it"
    request = copied(theirs.asked)
    request.node.node_id = request.messages_list[0].metadata.src_node_id = 7
    assert refused(scene.calls, mine, request) == 403, "the other's question"


def test_an_answer_of_too_many_objects_is_not_forwarded(scene: Scene) -> None:
    push = one(scene.mine, "push-messages")
    for count in (MOST_OBJECTS - 3, MOST_OBJECTS - 2, 200, 2500):
        request = copied(push.asked)
        records = request.message_object_trees[0].children[0]
        records.children.extend(ObjectTree(object_id=hashlib.sha256(b"%d" % n).hexdigest()) for n in range(count))
        unanswered = FleetCalls(scene.calls._handed_out, lambda: LARGEST_OBJECT)
        assert refused(unanswered, push, request) == (None if count + 3 <= MOST_OBJECTS else 413)
    request = copied(push.asked)
    tree = request.message_object_trees[0]
    for number in range(60):
        tree = tree.children.add(object_id=hashlib.sha256(b"%d" % number).hexdigest())
    assert refused(scene.calls, push, request) == 413


@pytest.mark.guarantee(
    "a question has one answer: announced once more it is the same, so announcements fill no database."
)
def test_a_second_answer_to_a_question_is_refused_and_the_same_one_is_welcome(scene: Scene) -> None:
    push = one(scene.mine, "push-messages")
    other_root, other_part = copied(push.asked), copied(push.asked)
    name = hashlib.sha256(b"another").hexdigest()
    other_root.messages_list[0].metadata.message_id = other_root.message_object_trees[0].object_id = name
    other_part.message_object_trees[0].children[0].children.add(object_id=name)
    for _ in range(3):
        assert refused(scene.calls, push, push.asked) is None, "as a link does after a cut"
        assert refused(scene.calls, push, other_root) == refused(scene.calls, push, other_part) == 403


def test_what_was_answered_is_known_as_long_as_the_question_and_no_longer() -> None:
    handed = HandedOut()
    calls = FleetCalls(handed, lambda: LARGEST_OBJECT)
    answers = {}
    for number in range(3 * PER_NODE):
        question = Metadata(run_id=50, message_id=f"question-{number}", src_node_id=1, dst_node_id=7)
        handed.keep(7, question, ["object"])
        answers[number] = answer_to(question, b"first")
        assert refused(calls, answers[number], answers[number].asked) is None
    assert len(calls._given[7]) <= 2 * PER_NODE
    latest = Metadata(run_id=50, message_id=f"question-{number}", src_node_id=1)
    assert refused(calls, answers[number], answer_to(latest, b"second").asked) == 403
    assert refused(calls, answers[number], answers[number].asked) is None


def answer_to(question: Metadata, content: bytes) -> Forwarded:
    name = hashlib.sha256(content + question.message_id.encode()).hexdigest()
    request = PushMessagesRequest(message_object_trees=[ObjectTree(object_id=name)])
    request.node.node_id = 7
    metadata = request.messages_list.add().metadata
    metadata.run_id, metadata.message_id, metadata.src_node_id = question.run_id, name, 7
    metadata.dst_node_id, metadata.reply_to_message_id = 1, question.message_id
    return Forwarded(node_named("ward-7", 7), f"{FLEET_API}push-messages", request, b"")


def test_an_object_larger_than_the_studys_is_not_forwarded(scene: Scene) -> None:
    push = one(scene.mine, "push-object")
    request = copied(push.asked)
    request.object_content = bytes(LARGEST_OBJECT + 1)
    assert refused(scene.calls, push, request) == 413
    request.object_content = bytes(3400 * LARGEST_OBJECT)
    assert refused(scene.calls, push, request) == 413
    assert scene.calls.largest_body(push.path) < LARGEST_OBJECT + 2000, "so its body is not read either"


def test_what_is_no_call_of_a_link_or_no_request_is_not_forwarded(scene: Scene) -> None:
    node = scene.mine[0].node
    for path in ("/v1/fleet/register-node", "/v1/fleet/get-fab", "/v1/fleet/", "/v1/control/list-runs", "/v1/fleet/x"):
        with pytest.raises(CallRefused) as error:
            scene.calls.read(node, path, b"")
        assert error.value.status == 404 and not scene.calls.knows(path)
    for call in scene.mine:
        with pytest.raises(CallRefused) as error:
            scene.calls.read(node, call.path, b"\xff" * 9)
        assert error.value.status == 400


def test_fields_that_flower_does_not_know_are_left_behind(scene: Scene) -> None:
    for call in scene.mine:
        longer = call.asked.SerializeToString() + b"\xfa\x3f\x05added"
        assert scene.calls.read(call.node, call.path, longer).body == call.body


def test_an_object_that_the_gateway_saw_no_announcement_of_is_announced_again(scene: Scene) -> None:
    # a new gateway knows the questions from its file, and not what was announced to the one before
    push, again = one(scene.mine, "push-object"), FleetCalls(HandedOut(), lambda: LARGEST_OBJECT)
    assert refused(again, push, push.asked) == 425, "the link answers by announcing anew"


def test_a_gateway_that_was_killed_remembers_whom_it_handed_what(tmp_path: Path) -> None:
    path = tmp_path / "handed-out"
    superlink, (node, key) = Superlink(), make_node("ward-7", 7)
    question = superlink.ask(7, 50)
    life = whole_life(node, key, FleetCalls(HandedOut(path), lambda: LARGEST_OBJECT), superlink)
    with path.open("a") as file:
        file.write('["7", "cut off')
    again = FleetCalls(HandedOut(path), lambda: LARGEST_OBJECT)
    for name in ("pull-object", "confirm-message-received", "get-run", "push-messages"):
        call = one(life, name)
        assert again.read(node, call.path, call.asked.SerializeToString()).body == call.body
    assert HandedOut(path).question(9, question.metadata.message_id) is None
    HandedOut(path).keep(7, Metadata(run_id=51, message_id="next"), ["object"])
    assert HandedOut(path).has_object(7, 51, "object"), "what came after a line that was cut off is kept whole"
    assert path.stat().st_mode & 0o077 == 0
