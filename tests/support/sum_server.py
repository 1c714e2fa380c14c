"""A secure sum's nodes and server in one process: real sessions at the nodes, the real rounds at the server."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from numpy.typing import NDArray

from server.aggregation.mean import UniformMean
from server.certificate_authority import public_pem
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import Coordinator, EvaluatePrivately, RunTerms, no_private_evaluation
from server.run_store.values import Node
from server.secure_sum.files import SumFiles
from server.secure_sum.members import Federation, RosterMembers
from server.secure_sum.opening import Opening, Surroundings
from server.secure_sum.roster import RunRoster
from server.secure_sum.rounds import SecureRounds
from shared.errors import SettingsError
from shared.protocol.fixed_point import as_integers, mean_of
from shared.protocol.flower_records import decode_offer, decode_task, encode_offer_reply, encode_reply
from shared.protocol.messages import (
    LegReply,
    LegTask,
    OfferReply,
    Peer,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
)
from shared.protocol.sum_records import decode_leg, encode_leg_reply, is_leg
from shared.secure_sum.context import RoundContext
from shared.secure_sum.entries import sign_entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.node import (
    MaskedRow,
    Member,
    SurvivorsRow,
    mask_vector,
    open_sum,
    resend,
    sign_survivors,
    take_roster,
)
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Numbers, Roster
from shared.secure_sum.thresholds import OwnPolicy, Thresholds
from simulations.engines.grid import with_id

RUN, STUDY, LENGTH = "r-1", "5" * 64, 6


@dataclass
class SumNode:
    """A node that follows the rules, but for what a test makes it do."""

    name: str
    number: int
    update: NDArray[np.float32]
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    keys: RunKeys = field(default_factory=RunKeys.generate)
    study_sha256: str = STUDY
    peers: tuple[Peer, ...] = ()
    """As the last offer named them."""
    approves: Status = Status.APPROVED
    fails: Status | None = None
    """Answers every task so, without a vector."""
    silent: set[str] = field(default_factory=set)
    """Kinds of questions that it does not answer: offer, train, survivors, opening."""
    tamper: Callable[[str, bytes], bytes] = lambda _kind, content: content
    code: dict[str, Status] = field(default_factory=dict)
    """Codes that it answers a leg with."""
    names_no_round: bool = False
    present: bool = True
    asked: list[str] = field(default_factory=list)
    roster: str | None = None
    rows: dict[int, MaskedRow] = field(default_factory=dict)
    signed: dict[int, SurvivorsRow] = field(default_factory=dict)
    _contexts: dict[int, tuple[Member, RoundContext]] = field(default_factory=dict)

    def entry(self, run: str = RUN) -> bytes:
        return sign_entry(run, self.study_sha256, self.name, self.keys.public, self.key).to_bytes()

    def answer(self, message: Message) -> Message | None:
        content: Any
        if is_leg(message.content):
            leg = decode_leg(message.content)
            self.asked.append(leg.leg)
            content = None if leg.leg in self.silent else encode_leg_reply(self._leg(leg))
        elif message.metadata.message_type == "query":
            self.asked.append("offer")
            offer = decode_offer(message.content)
            reply = OfferReply(offer.study_run, self.approves, entry=self.tamper("entry", self.entry(offer.study_run)))
            self.peers = offer.peers
            content = None if "offer" in self.silent else encode_offer_reply(reply)
        else:
            self.asked.append("train")
            task = decode_task(message.content)
            content = None if "train" in self.silent else encode_reply(self._train(task))
        return None if content is None else Message(content, reply_to=message)

    def _train(self, task: TrainTask) -> TrainReply:
        identity = task.study_sha256, task.study_run, task.round, task.adapter_sha256
        if self.fails is not None:
            return TrainReply(*identity, self.fails, np.zeros(0, np.float32), masked=bytes(8 * LENGTH))
        roster = Roster.from_bytes(task.roster)
        member = take_roster(
            roster,
            roster.entry(self.name),
            self.keys,
            roster.numbers,
            OwnPolicy({entry.fingerprint: "" for entry in roster.entries}),
            self.roster,
            run=task.study_run,
            study_sha256=self.study_sha256,
            vouched=lambda _entry: True,
        )
        self.roster = roster.sha256
        context = RoundContext(task.study_run, task.study_sha256, task.round, task.adapter_sha256, roster.sha256)
        self._contexts[task.round] = member, context
        if task.round not in self.rows:
            integers = as_integers(self.update * np.float32(task.round))
            row = mask_vector(member, context, integers, None)
            self.rows[task.round] = replace(row, message=self.tamper("masked", row.message))
        masked = resend(context, self.rows[task.round])
        return TrainReply(*identity, Status.TRAINED, np.zeros(0, np.float32), masked=masked)

    def _leg(self, task: LegTask) -> LegReply:
        if task.leg in self.code:
            named = ("", 0) if self.names_no_round else (task.study_run, task.round)
            return LegReply(task.leg, *named, self.code[task.leg])
        (member, context), row = self._contexts[task.round], self.rows[task.round]
        try:
            if task.leg == "survivors":
                signed, content = sign_survivors(member, context, task.content, row, self.signed.get(task.round))
                self.signed[task.round] = signed
            else:
                content = open_sum(member, context, task.content, row, self.signed.get(task.round))
        except SecureSumError:
            return LegReply(task.leg, task.study_run, task.round, Status.REFUSED_SURVIVORS)
        return LegReply(task.leg, task.study_run, task.round, Status.TRAINED, self.tamper(task.leg, content))


class NodesGrid:
    """Flower's Grid over such nodes: a reply is there at once, or never."""

    def __init__(self, nodes: Iterable[SumNode]) -> None:
        self.nodes = {node.number: node for node in nodes}
        self._replies: dict[str, Message] = {}
        self.after: Callable[[], None] = lambda: None
        """Is called whenever somebody looks who is present."""

    def get_node_ids(self) -> list[int]:
        self.after()
        return [number for number, node in self.nodes.items() if node.present]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node = self.nodes[message.metadata.dst_node_id]
            if not node.present:
                ids.append("")
                continue
            question = with_id(message)
            ids.append(question.metadata.message_id)
            if (reply := node.answer(question)) is not None:
                self._replies[question.metadata.message_id] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(one) for one in list(message_ids) if one in self._replies]


class Server:
    """A server that may be killed: each `drive` is a new process over the same folder."""

    study_sha256, length = STUDY, LENGTH

    def __init__(
        self, folder: Path, nodes: int, *, threshold: int | None = None, rounds: int = 1, quorum: int = 2
    ) -> None:
        updates = np.random.default_rng(7).normal(size=(nodes, LENGTH)).astype(np.float32)
        self.nodes = [SumNode(f"clinic-{chr(97 + i)}", 11 + i, update) for i, update in enumerate(updates)]
        self.folder, self._threshold, self._rounds, self._quorum = folder, threshold, rounds, quorum
        self.grid, self.events, self.totals = (
            NodesGrid(self.nodes),
            list[tuple[str, dict[str, Any]]](),
            dict[int, Any](),
        )
        self.waits, self.fixed_for_s = list[str](), 1000.0
        self.revoked, self.store = set[str](), _Store(self)
        self.enrolled_keys = dict[str, ec.EllipticCurvePrivateKey]()
        """Where the server knows another key than the node's."""
        self.on_change: Callable[[dict[str, list[int]]], None] = lambda _by_status: None
        self.now: Callable[[], float] = itertools.count(1e9).__next__
        """A second passes whenever somebody looks at the clock."""
        self.evaluating: Callable[[Opening], EvaluatePrivately] = lambda _opening: no_private_evaluation
        self.roster_clock: Callable[[], float] = itertools.count(0.0, 30.0).__next__

    def numbers(self, nodes: int) -> Numbers:
        default = nodes - 1 if nodes > 3 else nodes
        threshold = self._threshold or default
        if nodes < 3 or threshold > nodes or 2 * threshold <= nodes + 1:
            raise SettingsError(f"Expected other numbers, got {nodes}.")
        return Numbers("masked", Thresholds(nodes, threshold, 1))

    def names(self) -> dict[int, str]:
        return {node.number: node.name for node in self.nodes}

    def nodes_of_store(self) -> list[Node]:
        def revoked(node: SumNode) -> str | None:
            return "2026-02-01" if node.name in self.revoked else None

        keys = {node.name: node.key for node in self.nodes} | self.enrolled_keys
        return [
            Node(node.name, node.number, public_pem(keys[node.name].public_key()), "2026", "2026", revoked(node))
            for node in self.nodes
        ]

    def drive(self) -> State:
        files = SumFiles(self.folder / "sum")
        federation = Federation(self.store, clock=itertools.count(0, 10).__next__)  # type: ignore[arg-type]
        self.roster = RunRoster(
            RUN,
            self.study_sha256,
            numbers=self.numbers,
            most=int,
            begins_with=3,
            quorum=self._quorum,
            file=files.roster,
            clock=self.roster_clock,
        )
        offer = StudyOffer(RUN, "{}")
        self.members = RosterMembers(
            self.grid,  # type: ignore[arg-type]
            offer,
            self.roster,
            federation,
            on_change=lambda by_status: self.on_change(by_status),
            patience_s=0.0,
        )
        around = Surroundings(
            federation.name,
            lambda kind, body: self.events.append((kind, body)),
            self.waits.append,
            lambda: federation.note_revoked(self.roster),
            self.fixed_for_s,
            self.now,
            look_every_s=0.0,
        )
        opening = Opening(self.grid, self.roster, files, around)  # type: ignore[arg-type]
        rounds = SecureRounds(opening, self._step)
        return Coordinator(
            self.grid,  # type: ignore[arg-type]
            RunTerms(self.study_sha256, RUN, self._rounds, 2, 0.3, "int64", grace_s=0.0),
            initial=np.zeros(self.length, np.float32),
            largest_norm=lambda _number: 100.0,
            aggregation=lambda start: UniformMean(start.length),
            checkpoints=Checkpoints(self.folder / "checkpoints"),
            participants=self.members,
            secure_sum=rounds,
            evaluate_privately=self.evaluating(opening),
        ).run()

    def expected(self, *names: str, number: int = 1) -> NDArray[np.int64]:
        chosen = [node for node in self.nodes if node.name in names]
        return sum((as_integers(node.update * np.float32(number)) for node in chosen), np.zeros(LENGTH, np.int64))

    def kinds(self) -> list[str]:
        return [kind for kind, _body in self.events]

    def body(self, kind: str) -> dict[str, Any]:
        return next(body for one, body in reversed(self.events) if one == kind)

    def _step(self, number: int, total: NDArray[np.int64], nodes: int, current: NDArray[np.float32]) -> Any:
        self.totals[number] = total.copy()
        return (current.astype(np.float64) + mean_of(total, nodes)).astype(np.float32)


class _Store:
    def __init__(self, server: Server) -> None:
        self._server = server

    def names(self) -> dict[int, str]:
        return self._server.names()

    def nodes(self) -> list[Node]:
        return self._server.nodes_of_store()
