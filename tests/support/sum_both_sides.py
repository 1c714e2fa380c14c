"""A server's rounds over the vault's own pieces of a secure sum, in one process."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message

from client.answer import answer
from client.vault.secure_sum.legs import answer_leg
from shared.privacy.sum_numbers import sum_numbers
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
from shared.secure_sum.roster import Numbers
from shared.study.declaration import Study
from tests.support.sum_nodes import LENGTH, Federation, SumNode
from tests.support.sum_server import NodesGrid, Server


@dataclass
class Vault:
    """A node's vault, asked as a link asks it."""

    node: SumNode
    number: int
    present: bool = True

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        return self.node.signer.key

    def answer(self, message: Message) -> Message:
        return Message(answer(message, self), reply_to=message)

    def offer(self, offer: StudyOffer) -> OfferReply:
        return OfferReply(offer.study_run, Status.APPROVED, entry=self.node.entry().to_bytes())

    def train(self, task: TrainTask) -> TrainReply:
        return self.node.train(task)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        return self.node.evaluate(task)

    def leg(self, task: LegTask) -> LegReply:
        with self.node.ledger() as ledger:
            return answer_leg(ledger, self.node.files, task, lambda _run: self.node.rule)


class BothSides(Server):
    """A server whose nodes are vaults."""

    length = LENGTH

    def __init__(self, folder: Path, *, rounds: int = 2, study: Study | None = None) -> None:
        super().__init__(folder / "server", 0, rounds=rounds)
        self.federation = Federation(folder, study)
        self.study_sha256 = self.federation.study.sha256
        self.vaults = [Vault(node, 11 + place) for place, node in enumerate(self.federation.nodes.values())]
        self.nodes, self.grid = self.vaults, NodesGrid(self.vaults)  # type: ignore[assignment, arg-type]

    def numbers(self, nodes: int) -> Numbers:
        return sum_numbers(self.federation.study, nodes)
