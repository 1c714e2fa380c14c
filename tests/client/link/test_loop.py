"""The link, against a fleet that fails in every way: it comes back, loses nothing and says nothing it should not."""

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pkgutil import resolve_name

import httpx
import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from client.link import process as link_process
from client.link.fleet import NotAccepted, Received, Refused
from client.link.inbox import Inbox
from client.link.long_poll import NoWaiting
from client.link.loop import CLOCK_SKEW_S, FIRST_WAIT_S, LONGEST_WAIT_S, Link, _beat, read_link
from client.link.membership import Membership
from client.settings import NodeSettings
from shared.errors import PeerError, RunError
from shared.protocol.flower_records import decode_offer_reply, decode_reply, encode_offer, encode_task
from shared.protocol.messages import LegReply, LegTask, OfferReply, Status, StudyOffer, TrainReply, TrainTask

ADAPTER = np.arange(50, dtype=np.float32)
TASK = TrainTask("s" * 64, "r-1", 3, ADAPTER)


class RecordingVault:
    """Says what it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def train(self, task: TrainTask) -> TrainReply:
        self.asked.append(task.round)
        return TrainReply(
            task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, task.adapter + 1
        )

    def offer(self, offer: StudyOffer) -> OfferReply:
        self.asked.append(offer.study_run)
        return OfferReply(offer.study_run, Status.APPROVED)

    def leg(self, task: LegTask) -> LegReply:
        self.asked.append(task.study_run)
        return LegReply(task.leg, task.study_run, task.round, Status.TRAINED, task.content[::-1])


def received(content: RecordDict, kind: str = "train") -> Received:
    """A message as the fleet hands it over."""
    message = Message(content, 7, kind)
    name = message.object_id
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    return Received(name, 1, objects)


class Fleet:
    """A server with messages to hand out, and a script of troubles: what a call of each name raises, in order."""

    node_id, present_until = 7, 0.0

    def __init__(self, messages: list[Received], troubles: dict[str, list[Exception | None]], stop: threading.Event):
        self.messages, self.troubles, self.stop = messages, troubles, stop
        self.calls: list[str] = []
        self.replies: list[tuple[str, RecordDict]] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        script = self.troubles.get(name, [])
        trouble = script.pop(0) if script else None
        if trouble is not None:
            raise trouble

    def activate(self, known_node_id: int) -> None:
        self._call("activate")
        self.node_id = known_node_id or 7

    def heartbeat(self) -> bool:
        return True

    def receive(self) -> Received | None:
        self._call("receive")
        if not self.messages:
            self.stop.set()
            return None
        return self.messages[0]

    def something_waits(self) -> bool:
        raise NoWaiting("test")

    def confirm(self, message: Received) -> None:
        self.messages.remove(message)
        self._call("confirm")

    def reply(self, message: Received, content: RecordDict) -> None:
        self._call("reply")
        self.replies.append((message.message_id, content))

    def close(self, *, deactivate: bool) -> None:
        self.calls.append(f"close {deactivate}")


def run(folder: Path, fleet: Fleet, vault: RecordingVault, waits: list[float] | None = None) -> None:
    def wait(seconds: float) -> bool:
        if waits is not None:
            waits.append(seconds)
        return fleet.stop.is_set()

    Link(lambda: fleet, vault, folder, server="gate:1", node_id=7, stop=fleet.stop, wait=wait).run()  # type: ignore[arg-type,return-value]


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def cut() -> Exception:
    return httpx.ConnectError("no route")


def test_a_task_is_fetched_answered_and_forgotten(tmp_path: Path, stop: threading.Event) -> None:
    fleet, vault = Fleet([received(encode_task(TASK))], {}, stop), RecordingVault()
    run(tmp_path, fleet, vault)
    assert fleet.calls == ["activate", "receive", "confirm", "reply", "receive", "close True"]
    reply = decode_reply(fleet.replies[0][1])
    assert reply.round == 3 and np.array_equal(reply.update, ADAPTER + 1)
    assert Inbox(tmp_path / "inbox").oldest() is None
    assert read_link(tmp_path).trouble == "stopped" and read_link(tmp_path).node_id == 7


def test_offers_are_answered(tmp_path: Path, stop: threading.Event) -> None:
    fleet, vault = Fleet([received(encode_offer(StudyOffer("r-1", "{}")), "query")], {}, stop), RecordingVault()
    run(tmp_path, fleet, vault)
    assert decode_offer_reply(fleet.replies[0][1]) == OfferReply("r-1", Status.APPROVED)


def test_a_cut_is_waited_out_on_the_same_connection_and_the_reply_is_sent_again(
    tmp_path: Path, stop: threading.Event
) -> None:
    troubles = {"reply": [cut(), cut()], "receive": [cut(), None]}
    fleet, vault, waits = Fleet([received(encode_task(TASK))], troubles, stop), RecordingVault(), list[float]()
    run(tmp_path, fleet, vault, waits)
    assert fleet.calls.count("activate") == 1 and len(fleet.replies) == 1
    assert vault.asked == [3, 3, 3], "the vault gives the same bytes again"
    assert len(waits) >= 3


def test_a_server_that_is_away_is_asked_for_ever_with_growing_jittered_pauses(
    tmp_path: Path, stop: threading.Event
) -> None:
    fleet, waits = Fleet([], {"activate": [cut() for _ in range(40)]}, stop), list[float]()
    run(tmp_path, fleet, RecordingVault(), waits)
    assert fleet.calls.count("activate") == 41
    for number, waited in enumerate(waits[:40]):
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(number, 20))
        assert longest / 2 <= waited <= longest
    assert len({round(waited, 6) for waited in waits[20:40]}) > 10, "no two nodes come back in step"


def test_a_key_that_is_not_accepted_is_said_and_tried_again(tmp_path: Path, stop: threading.Event) -> None:
    seen: list[str] = []
    fleet = Fleet([], {"activate": [NotAccepted("the server answered 412"), None]}, stop)

    def wait(_seconds: float) -> bool:
        seen.append(read_link(tmp_path).trouble)
        return stop.is_set()

    Link(lambda: fleet, RecordingVault(), tmp_path, server="gate:1", stop=stop, wait=wait).run()  # type: ignore[arg-type,return-value]
    assert "does not accept this node's key" in seen[0] and fleet.calls.count("activate") == 2


def test_a_killed_link_finds_the_message_it_had_not_answered(tmp_path: Path, stop: threading.Event) -> None:
    message = received(encode_task(TASK))
    Inbox(tmp_path / "inbox").keep(message)  # and then it was killed: the server will not hand it out again
    fleet, vault = Fleet([], {}, stop), RecordingVault()
    run(tmp_path, fleet, vault)
    assert [name for name, _ in fleet.replies] == [message.message_id] and vault.asked == [3]


def test_the_message_is_on_disk_before_the_server_hears_of_it(tmp_path: Path, stop: threading.Event) -> None:
    class Killed(Fleet):
        def confirm(self, message: Received) -> None:
            kept = Inbox(tmp_path / "inbox").oldest()
            assert kept is not None and kept == message
            super().confirm(message)

    fleet = Killed([received(encode_task(TASK))], {}, stop)
    run(tmp_path, fleet, RecordingVault())
    assert len(fleet.replies) == 1


@pytest.mark.parametrize("trouble", ["reply", "confirm", "receive"])
def test_what_the_server_does_not_want_any_more_is_dropped(tmp_path: Path, stop: threading.Event, trouble: str) -> None:
    fleet = Fleet([received(encode_task(TASK))], {trouble: [Refused("the server answered 403")]}, stop)
    run(tmp_path, fleet, RecordingVault())
    assert Inbox(tmp_path / "inbox").oldest() is None


def test_a_message_that_cannot_be_read_is_dropped(tmp_path: Path, stop: threading.Event) -> None:
    whole = received(encode_task(TASK))
    broken = Received(whole.message_id, 1, {whole.message_id: b"nonsense"})
    fleet = Fleet([broken, received(encode_task(TASK))], {}, stop)
    run(tmp_path, fleet, RecordingVault())
    assert len(fleet.replies) == 1
    (tmp_path / "inbox" / "torn.message").write_bytes(b"half a zip")
    assert Inbox(tmp_path / "inbox").oldest() is None and not list((tmp_path / "inbox").iterdir())


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_waited_out_on_the_same_connection_and_no_message_is_lost(
    tmp_path: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, waits = [FULL] * 6, list[float]()

    def full_for_a_while(whole: Callable[..., object]) -> Callable[..., object]:
        def write(*arguments: object) -> object:
            if left:
                raise left.pop()
            return whole(*arguments)

        return write

    for name in ("client.link.inbox.private_file", "client.link.loop.write_atomically"):
        monkeypatch.setattr(name, full_for_a_while(resolve_name(name)))
    fleet = Fleet([received(encode_task(TASK))], {}, stop)
    run(tmp_path, fleet, RecordingVault(), waits)
    assert left == [] and len(fleet.replies) == 1 and fleet.calls.count("activate") == 1 and len(waits) >= 2
    assert read_link(tmp_path).trouble == "stopped"


def test_a_message_that_the_machine_cannot_read_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, message = Inbox(tmp_path), received(encode_task(TASK))
    inbox.keep(message)
    with monkeypatch.context() as patch:
        patch.setattr("client.link.inbox.zipfile.ZipFile", raising(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(OSError, match="Too many open files"):
            inbox.oldest()
    assert inbox.oldest() == message


def test_a_node_whose_waits_say_that_it_is_there_sends_no_heartbeat_and_one_that_is_lost_hears_of_it(
    tmp_path: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.link.loop.HEARTBEAT_EVERY_S", 0.01)
    fleet, beats = Fleet([], {}, stop), list[float]()
    fleet.present_until = time.monotonic() + 0.3

    def beat() -> bool:
        beats.append(time.monotonic())
        return False

    monkeypatch.setattr(fleet, "heartbeat", beat)
    gone = threading.Event()
    _beat(fleet, gone)  # type: ignore[arg-type]
    assert gone.is_set() and len(beats) == 1 and beats[0] >= fleet.present_until


def raising(error: Exception) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def spoiled(key: str, value: int | str) -> RecordDict:
    content = encode_task(TASK)
    content["task"][key] = value  # type: ignore[index]
    return content


NONSENSE = {
    "no round": (spoiled("round", -1), "train"),
    "too large a round": (spoiled("round", 2**63 - 1), "train"),
    "a number for a name": (spoiled("study-run", 3), "train"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_from_the_server_gets_a_code_and_the_next_task_its_answer(
    tmp_path: Path, stop: threading.Event, case: str
) -> None:
    fleet, vault = Fleet([received(*NONSENSE[case]), received(encode_task(TASK))], {}, stop), RecordingVault()
    run(tmp_path, fleet, vault)
    assert vault.asked == [3] and len(fleet.replies) == 2
    assert decode_reply(fleet.replies[0][1]).status is Status.REFUSED_STUDY
    assert Inbox(tmp_path / "inbox").oldest() is None


@pytest.mark.parametrize("trouble", ["reply", "receive", "confirm"])
def test_a_fault_that_nobody_foresaw_costs_one_message_and_not_the_link(
    tmp_path: Path, stop: threading.Event, trouble: str
) -> None:
    faults: list[Exception | None] = [UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), None]
    fleet = Fleet([received(encode_task(TASK)), received(encode_task(replace(TASK, round=4)))], {trouble: faults}, stop)
    run(tmp_path, fleet, RecordingVault())
    assert decode_reply(fleet.replies[-1][1]).round == 4
    assert Inbox(tmp_path / "inbox").oldest() is None and fleet.calls.count("activate") == 1


def test_a_server_that_refuses_to_activate_the_node_is_asked_again(tmp_path: Path, stop: threading.Event) -> None:
    fleet = Fleet([], {"activate": [Refused("the server answered 404"), None]}, stop)
    run(tmp_path, fleet, RecordingVault())
    assert fleet.calls.count("activate") == 2 and read_link(tmp_path).trouble == "stopped"


def test_a_task_that_nobody_waits_for_any_more_is_neither_trained_nor_answered(
    tmp_path: Path, stop: threading.Event
) -> None:
    message = Message(encode_task(TASK), 7, "train", ttl=60.0)
    message.metadata.created_at = time.time() - 61.0 - CLOCK_SKEW_S
    name = message.object_id
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    Inbox(tmp_path / "inbox").keep(Received(name, 1, objects))
    fleet, vault = Fleet([received(encode_task(TASK))], {}, stop), RecordingVault()
    run(tmp_path, fleet, vault)
    assert vault.asked == [3] and len(fleet.replies) == 1 and fleet.replies[0][0] != name
    assert Inbox(tmp_path / "inbox").oldest() is None


def test_message_ids_do_not_become_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        Inbox(tmp_path).keep(Received("../../etc/passwd", 1, {}))


@pytest.mark.parametrize("trouble", [PeerError("503"), RunError("away"), OSError("no route"), ValueError("no JSON")])
def test_a_renewal_that_fails_is_tried_again(trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    script: list[Exception | None] = [trouble, None]

    class Member:
        expires = datetime.now(UTC) + timedelta(days=9)

        def renew_if_due(self, *_: object) -> bool:
            asked = script.pop(0)
            if asked is not None:
                raise asked
            return True

    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda _seconds: not script)
    link_process._keep_renewed(Member(), NodeSettings(), Path(), stop)  # type: ignore[arg-type]
    assert script == []


@pytest.mark.parametrize("damage", [b"", b"not a certificate", b"\xff"])
def test_a_damaged_certificate_does_not_end_its_renewal(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link, waits, stop = tmp_path / "link", list[float](), threading.Event()
    link.mkdir()
    (link / "node.crt").write_bytes(damage)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 2

    monkeypatch.setattr(stop, "wait", wait)
    link_process._keep_renewed(Membership(link, "ward", "127.0.0.1:1", 7), NodeSettings(), tmp_path, stop)
    assert len(waits) == 2 and caplog.text.count("cannot be read as a certificate. It could not be renewed") == 2


def test_the_link_has_neither_torch_nor_the_records_in_its_process() -> None:
    code = "import sys, client.link.process, client.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    private = {
        "torch",
        "transformers",
        "opacus",
        "pandas",
        "client.vault.training.round_trainer",
        "client.vault.ledger.ledger",
    }
    assert "client.link.loop" in done.stdout.split() and not private & set(done.stdout.split())
