"""A node's vault in secure sums, over its socket: keys, a whole round, what ends with a run and with a backup."""

import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from client.link.roster_signer import RosterSigner
from client.link.vault_client import VaultClient
from client.operator.backup import back_up
from client.operator.withdrawal import withdraw
from client.vault.ledger.ledger import Ledger
from client.vault.review.forgetting import forget_left_over
from client.vault.review.node_files import open_node
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from shared.protocol.fixed_point import FRACTION_BITS
from shared.protocol.messages import Leg, LegReply, LegTask, Peer, Status, TrainReply, TrainTask, without_content
from shared.secure_sum.context import RoundContext
from shared.secure_sum.entries import Entry, is_signed
from shared.secure_sum.messages import MaskedVector
from shared.secure_sum.session import Session
from shared.study.declaration import Study
from tests.support.nodes import Node, offer, task
from tests.support.operators import reject_run
from tests.support.sum_nodes import RUN, SumNode, SumServer, certificate_key, fingerprint

PEERS = ("east", "south", "west")
PINS = "\n".join(f'{name} = "{fingerprint(name)}"' for name in PEERS)


class Served:
    """The node's vault behind its socket, and its peers."""

    def __init__(self, node: Node, client: VaultClient, study: Study) -> None:
        self.node, self.client, self.study = node, client, study
        length = len(task(study).adapter)
        self.peers = [SumNode(node.folder / "peers", name, study, [k] * length) for k, name in enumerate(PEERS)]
        for peer in self.peers:
            peer.trainer.dimension = length
            peer.approve()

    def entry(self) -> Entry:
        return Entry.from_bytes(self.client.offer(offer(self.study)).entry)

    def server(self) -> SumServer:
        server = SumServer(self.study, self.peers)
        server.roster = server.roster_of([*server.roster.entries, self.entry()])
        return server

    def task(self, server: SumServer, number: int = 1) -> TrainTask:
        return server.task(number, adapter=task(self.study).adapter)

    def leg(self, leg: Leg, content: bytes, number: int = 1) -> tuple[Status, bytes]:
        reply = self.client.leg(LegTask(leg, self.study.sha256, RUN, number, content))
        return reply.status, reply.content

    def session(self, server: SumServer) -> Session:
        asked = self.task(server)
        context = RoundContext(RUN, self.study.sha256, 1, asked.adapter_sha256, server.roster.sha256)
        session = Session(server.roster, context, len(asked.adapter))
        for peer in self.peers:
            session.add_masked(peer.name, peer.train(asked).masked)
        return session


@pytest.fixture
def study(node: Node) -> Study:
    return node.study(federation={"quorum": 3, "secure_sum": "masked"})


@pytest.fixture
def served(node: Node, study: Study) -> Iterator[Served]:
    node.config.write_text(f"{node.config.read_text()}\n[peers]\n{PINS}\n")
    node.approve(study)
    steps = Steps()
    socket = open_node(node.config).folders.socket
    with serving(VaultService(NodeVault(node.config, on_step=steps), steps), socket):
        client = VaultClient(socket, patience_s=60.0, signer=RosterSigner("north", certificate_key("north")))
        yield Served(node, client, study)
        client.close()


def kept(node: Node) -> list[str]:
    folder = open_node(node.config).folders.secure_sum
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_round_over_the_socket_opens_to_the_sum_alone(served: Served) -> None:
    server = served.server()
    session, asked = served.session(server), served.task(server)
    reply = served.client.train(asked)
    assert reply.status is Status.TRAINED and len(reply.update) == 0
    assert served.client.train(asked).masked == reply.masked
    session.add_masked("north", reply.masked)
    session.fix()
    for name in session.unsigned:
        status, content = answered(served, server, name, "survivors", session.survivors_question())
        assert status is Status.TRAINED
        session.add_signature(name, content)
    for name in session.unopened:
        session.add_opening(name, answered(served, server, name, "opening", session.opening_question(name))[1])
    session.open()
    assert session.total is not None
    update = np.ldexp((session.total - sum(k for k, _ in enumerate(PEERS))).astype(np.float64), -FRACTION_BITS)
    assert 0 < np.abs(update).max() < 100, "a noisy update"
    masked = MaskedVector.from_bytes(reply.masked).values.view(np.int64)
    assert np.median(np.abs(masked)) > 2**60 and len(np.unique(masked)) == len(masked)


@pytest.mark.guarantee("what a node answers in a secure sum has one length, whether its vault or its link fails.")
def test_an_answer_has_one_length_whether_the_vault_or_the_link_fails(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = served.task(served.server())
    away = VaultClient(tmp_path / "no.sock", patience_s=0.0, signer=RosterSigner("north", certificate_key("north")))
    answers = [served.client.train(asked), away.train(asked)]
    away.close()

    def cannot_be_opened(*_: Any) -> Any:
        raise OSError("its records")

    monkeypatch.setattr(NodeVault, "_load", cannot_be_opened)
    answers.append(served.client.train(replace(asked, round=2)))
    (open_node(served.node.config).folders.secure_sum).rename(tmp_path / "keys that are gone")
    answers.append(served.client.train(replace(asked, round=2)))
    served.node.config.write_text("nothing that can be read")
    answers.append(served.client.train(replace(asked, round=2)))
    refused = [Status.REFUSED_POLICY] * 3
    assert [answer.status for answer in answers] == [Status.TRAINED, Status.FAILED, *refused]
    assert {len(answer.masked) for answer in answers} == {len(answers[0].masked)} and len(answers[0].masked) > 1000
    assert not any(len(answer.update) for answer in answers)


def answered(served: Served, server: SumServer, name: str, leg: Leg, content: bytes) -> tuple[Status, bytes]:
    if name == "north":
        return served.leg(leg, content)
    reply = server.nodes[name].leg(leg, content)
    return reply.status, reply.content


def test_keys_are_made_once_for_an_approved_run_and_its_line_is_signed_by_the_certificate(
    served: Served, study: Study
) -> None:
    first, again = served.entry(), served.entry()
    assert first.keys == again.keys and first.name == "north" and first.fingerprint == fingerprint("north")
    assert is_signed(first, RUN, study.sha256) and is_signed(again, RUN, study.sha256)
    assert kept(served.node) == ["keys"]
    assert open_node(served.node.config).folders.secure_sum.stat().st_mode & 0o777 == 0o700
    waiting = served.client.offer(offer(served.node.study(study={"name": "other"}), run="r-2"))
    assert waiting.status is not Status.APPROVED and waiting.entry == b"" and kept(served.node) == ["keys"]


def test_a_run_without_a_secure_sum_has_no_keys_and_takes_no_roster(node: Node) -> None:
    study, vault = node.study(), NodeVault(node.config)
    node.approve(study)
    assert vault.identity(RUN, name="north", certificate_key=b"key") is None and kept(node) == []
    with_roster = TrainTask(study.sha256, RUN, 1, task(study).adapter, roster=b"roster")
    assert vault.train(with_roster).status is Status.REFUSED_STUDY
    assert vault.train(task(study)).status is Status.TRAINED


def test_a_node_whose_name_or_certificate_changed_hands_out_no_line(served: Served) -> None:
    served.entry()
    vault = NodeVault(served.node.config)
    key = RosterSigner("north", certificate_key("north")).certificate_key
    assert vault.identity(RUN, name="north", certificate_key=key) is not None
    assert vault.identity(RUN, name="other", certificate_key=key) is None
    assert vault.identity(RUN, name="north", certificate_key=b"other") is None


@pytest.mark.guarantee("a backup holds no key of a secure sum, so a restored node takes no further part in it.")
def test_a_restored_node_is_out_by_a_public_code(served: Served, tmp_path: Path) -> None:
    server = served.server()
    session, reply = served.session(server), served.client.train(served.task(server))
    session.add_masked("north", reply.masked)
    session.fix()
    archive, home = tmp_path / "backup.tar.gz", open_node(served.node.config).folders.home
    back_up(open_node(served.node.config), archive)
    with tarfile.open(archive) as tar:
        assert not [name for name in tar.getnames() if "secure_sum" in name]
        tar.extractall(tmp_path / "restored", filter="data")
    home.rename(tmp_path / "gone")
    shutil.move(tmp_path / "restored" / "home", home)
    vault = NodeVault(served.node.config)
    question = LegTask("survivors", served.study.sha256, RUN, 1, session.survivors_question())
    assert vault.leg(question).status is Status.OUT_OF_SECURE_SUM
    assert vault.train(served.task(server, 2)).status is Status.OUT_OF_SECURE_SUM
    assert vault.offer(offer(served.study)).status is Status.OUT_OF_SECURE_SUM
    key = RosterSigner("north", certificate_key("north")).certificate_key
    assert vault.identity(RUN, name="north", certificate_key=key) is None, "and no other keys are made"
    assert vault.train(served.task(server)).masked == reply.masked, "what was released is sent again"


@pytest.mark.parametrize("how", ["reject", "withdraw"])
def test_keys_are_deleted_with_the_run_and_its_questions_get_a_code(served: Served, how: str) -> None:
    server = served.server()
    assert served.client.train(served.task(server)).status is Status.TRAINED
    assert kept(served.node) == ["keys", "roster", "training-1"]
    if how == "reject":
        reject_run(served.node.config, RUN)
    else:
        withdraw(open_node(served.node.config), "ward")
    assert kept(served.node) == []
    assert served.leg("survivors", b"")[0] is Status.REJECTED
    assert served.client.offer(offer(served.study)).entry == b""


def test_keys_of_a_run_that_ended_in_a_crash_are_deleted_when_the_vault_starts(served: Served) -> None:
    served.entry()
    node = open_node(served.node.config)
    with node.open_ledger() as ledger:
        ledger.close_run(RUN)
    assert kept(served.node) == ["keys"]
    forget_left_over(node, node.ledger_state())
    assert kept(served.node) == []


def test_keys_of_a_run_whose_rounds_are_all_trained_are_deleted_after_a_week(served: Served) -> None:
    served.entry()
    node, day_s = open_node(served.node.config), 24 * 3600.0
    with node.open_ledger() as ledger:
        for number in range(1, served.study.federation.rounds):
            ledger.reserve(RUN, number)
        forget_left_over(node, ledger.state, time.time() + 30 * day_s)
        assert kept(served.node) == ["keys"], "a round is left"
        ledger.reserve(RUN, served.study.federation.rounds)
        forget_left_over(node, ledger.state, time.time() + 6 * day_s)
        assert kept(served.node) == ["keys"], "its sum may still be opened"
        forget_left_over(node, ledger.state, time.time() + 8 * day_s)
    assert kept(served.node) == []


def test_keys_of_a_run_that_its_server_gave_up_are_deleted_after_three_months_and_not_made_anew(served: Served) -> None:
    server, day_s = served.server(), 24 * 3600.0
    assert served.client.train(served.task(server)).status is Status.TRAINED
    node = open_node(served.node.config)
    forget_left_over(node, node.ledger_state(), time.time() + 89 * day_s)
    assert kept(served.node) == ["keys", "roster", "training-1"], "it may go on"
    forget_left_over(node, node.ledger_state(), time.time() + 91 * day_s)
    assert kept(served.node) == [] and served.client.offer(offer(served.study)).entry == b""
    assert served.client.train(served.task(server, 2)).status is Status.OUT_OF_SECURE_SUM


def test_a_vault_with_no_run_in_memory_deletes_keys_when_their_time_is_over(served: Served) -> None:
    served.entry()
    vault, node = NodeVault(served.node.config), open_node(served.node.config)
    with node.open_ledger() as ledger:
        for number in range(1, served.study.federation.rounds + 1):
            ledger.reserve(RUN, number)
    vault.forget_ended(announced=False)
    assert kept(served.node) == ["keys"], "its sum may still be opened"
    (keys,) = (path for path in node.folders.secure_sum.rglob("keys"))
    week_ago = time.time() - 8 * 24 * 3600.0
    os.utime(keys, (week_ago, week_ago))
    vault.forget_ended(announced=False)
    assert kept(served.node) == []


def test_peers_of_an_offer_are_kept_as_the_server_last_named_them(node: Node, study: Study) -> None:
    named = offer(study)
    peers = (Peer("east", "a" * 64), Peer("south", "b" * 64))
    vault, offers = NodeVault(node.config), open_node(node.config).offers
    vault.offer(named)
    assert offers.find(RUN).peers == ()
    for shown in (peers, peers[:1]):
        vault.offer(type(named)(RUN, named.study_json, peers=shown))
        assert offers.find(RUN).peers == shown
    for unfit in ((Peer("\x1b[31mred", "a" * 64),), (Peer("east", "a" * 64),) * 1001):
        assert vault.offer(type(named)(RUN, named.study_json, peers=unfit)).status is Status.REFUSED_STUDY
    assert offers.find(RUN).peers == peers[:1]


def test_a_policy_that_says_no_to_evaluations_helps_to_open_no_sum_of_counts_and_goes_on_with_updates(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def after_the_counts_left(ledger: Ledger, _files: object, task: LegTask, policy: Any) -> LegReply:
        policy(ledger.state.run(task.study_run))
        return without_content(task, Status.TRAINED)

    monkeypatch.setattr("client.vault.service.node_vault.answer_leg", after_the_counts_left)
    written, vault = served.node.config.read_text(), NodeVault(served.node.config)
    for word, of_counts in (("ask", Status.TRAINED), ("no", Status.REFUSED_POLICY)):
        served.node.config.write_text(written.replace("[datasets.ward]", f'[datasets.ward]\nevaluation = "{word}"'))
        for leg in get_args(Leg):
            question = LegTask(leg, served.study.sha256, RUN, 1, b"", purpose="evaluation")
            assert vault.leg(question).status is of_counts
            assert vault.leg(replace(question, purpose="training")).status is Status.TRAINED
    assert 'to help open a sum of counts, got "no"' in caplog.text


def test_whatever_breaks_in_the_vault_one_code_leaves(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> TrainReply:
        raise ValueError("patient Anna, row 17")

    monkeypatch.setattr("client.vault.service.node_vault.answer_leg", broken)
    assert served.leg("survivors", b"") == (Status.REFUSED_POLICY, b"")
    served.node.config.write_text("[nonsense")
    assert served.leg("opening", b"") == (Status.REFUSED_POLICY, b"")
