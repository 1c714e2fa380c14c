"""Nodes with the real vault pieces of a secure sum around a trainer of a few numbers, and the real server's session."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from client.link.roster_signer import RosterSigner
from client.vault.ledger.approval import evaluations_in
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import Limit
from client.vault.records.held_out import GROUP
from client.vault.secure_sum.admission import Admission
from client.vault.secure_sum.legs import answer_leg
from client.vault.secure_sum.masked_counts import MaskedCounts
from client.vault.secure_sum.masked_trainer import MaskedTrainer
from client.vault.secure_sum.sum_files import SumFiles
from client.vault.service.charged_evaluation import ChargedEvaluation
from client.vault.service.charged_round import ChargedRound
from client.vault.training.randomness import Randomness
from shared.errors import FedVaultError
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SubsampledGaussian
from shared.privacy.sum_numbers import sum_numbers
from shared.private_evaluation.cells import STEPS
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    Leg,
    LegReply,
    LegTask,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
)
from shared.secure_sum.context import RoundContext
from shared.secure_sum.entries import Entry
from shared.secure_sum.roster import Roster
from shared.secure_sum.session import Session
from shared.secure_sum.thresholds import OwnPolicy
from shared.study.declaration import Study
from shared.study.parsing import parse
from tests.support.ledgers import register

RUN, NAMES, LENGTH = "r-1", ("east", "north", "south", "west"), 5
ADAPTER = np.arange(LENGTH, dtype=np.float32)


EVALUATION = {"epsilon": 2.0, "rounds": [1, 2]}


@cache
def sum_study(mode: str = "masked", *, evaluates: bool = False, **federation: Any) -> Study:
    """Return a study with a secure sum, of four rounds."""
    declared = {
        "study": {"name": "test"},
        "model": {"source": "a-model"},
        "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
        "federation": {"rounds": 4, "quorum": 3, "secure_sum": mode, "typical_size": 60, **federation},
        "training": {"local_steps": 1},
        **({"evaluation": EVALUATION} if evaluates else {}),
    }
    return parse(Study, declared, where="test")


class Adding:
    """Trains nothing: what it adds is given."""

    declared_size, dimension = 60, LENGTH

    def __init__(self, study: Study, values: Sequence[int], trained: Callable[[int], None] = lambda _round: None):
        self.study, self.values, self._trained = study, values, trained
        self.release = schedule_of(study).release(study.training.local_steps)
        self.fails, self.charged = False, list[SubsampledGaussian]()
        self.model, self.broken = Counted(), False

    def evaluation_refusal(self, task: EvaluationTask) -> Status | None:
        return None if task.number in self.study.evaluated_after else Status.REFUSED_EVALUATION

    def refusal(self, task: TrainTask) -> Status | None:
        return None if 1 <= task.round <= self.study.federation.rounds else Status.REFUSED_STUDY

    def summand(self, task: TrainTask, release: SubsampledGaussian) -> NDArray[np.int64] | None:
        self._trained(task.round)
        self.charged.append(release)
        return None if self.fails else np.array(self.values, np.int64)

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        zeros = np.zeros(LENGTH, np.float32)
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, status, zeros)


class Counted:
    """A model that says how many held-out units are right and wrong; None: it cannot."""

    def __init__(self) -> None:
        self.counts: tuple[int, int] | None = (80, 20)

    def load(self, adapter: NDArray[np.float32]) -> None:
        del adapter


def exact(_study: Study, model: Counted, *_records: Any, on_record: Callable[[], None]) -> NDArray[np.int64]:
    """Count in place of `charged_evaluation.exact_histogram`."""
    on_record()
    if model.counts is None:
        raise FedVaultError("no counts")
    return np.array(model.counts, np.int64) * STEPS


class HeldOut:
    """Records of which nothing is read."""

    fields = (GROUP,)

    def __getitem__(self, _name: str) -> Any:
        return SimpleNamespace(values=np.zeros(0, np.int64))


class Silent:
    """Draws no noise, so that a sum can be compared to the last bit."""

    def step(self) -> Any:
        return SimpleNamespace(discrete_gaussian=lambda count, _scale: np.zeros(count, np.int64))


@cache
def certificate_key(name: str) -> ec.EllipticCurvePrivateKey:
    """Return a node's key; it is made once for all tests of a process."""
    del name
    return ec.generate_private_key(ec.SECP384R1())


def fingerprint(name: str) -> str:
    """Return what an operator pins."""
    return hashlib.sha256(RosterSigner(name, certificate_key(name)).certificate_key).hexdigest()


class SumNode:
    """One node: its ledger, what it keeps for secure sums, and its operator's rule."""

    def __init__(self, folder: Path, name: str, study: Study, values: Sequence[int] = (1, 2, 3, 4, 5)) -> None:
        self.folder, self.name, self.study = folder / name, name, study
        self.signer = RosterSigner(name, certificate_key(name))
        self.files = SumFiles(self.folder / "secure_sum")
        self.rule = OwnPolicy({fingerprint(peer): "" for peer in NAMES}, 1, 3)
        self.limit = Limit(9.0, 1e-5, math.inf)
        self.trainer, self.randomness = Adding(study, values), cast(Randomness, Silent())

    @property
    def declared(self) -> dict[str, Limit]:
        return {"data": self.limit}

    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.db", second_copy=self.folder / "second" / "head.json")

    def approve(self) -> "SumNode":
        with self.ledger() as ledger:
            register(ledger, "data", epsilon=9.0, delta=1e-5)
            rounds = self.study.federation.rounds
            sha256, release = self.study.sha256, self.trainer.release
            terms = {"study_sha256": sha256, "rounds": rounds, "per_round": release}
            ledger.approve("data", RUN, **terms, evaluations=evaluations_in(self.study), declared=self.declared)
        self.entry()
        return self

    def entry(self) -> Entry:
        identity = self.files.make(RUN, self.name, self.signer.certificate_key)
        assert identity is not None
        offer = StudyOffer(RUN, self.study.canonical_json())
        return Entry.from_bytes(self.signer.entry(offer, identity.entry.keys))

    def train(self, task: TrainTask) -> TrainReply:
        admission = Admission(self.files, self.study, self.rule, self.declared)
        trainer = MaskedTrainer(self.trainer, self.files)
        return ChargedRound(trainer, self.ledger, dataset="data", declared=self.declared, admit=admission).train(task)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Answer as a vault does, where `exact` counts in place of the model."""
        admission = Admission(self.files, self.study, self.rule, self.declared)
        return ChargedEvaluation(
            self.trainer,  # type: ignore[arg-type]
            HeldOut,  # type: ignore[arg-type]
            self.ledger,
            dataset="data",
            randomness=self.randomness,
            declared=self.declared,
            leaves=MaskedCounts(self.study, self.files, admission),
        ).evaluate(task)

    def leg(self, leg: Leg, content: bytes, number: int = 1, **changes: Any) -> LegReply:
        study, run = changes.get("study", self.study.sha256), changes.get("run", RUN)
        task = LegTask(leg, study, run, number, content, changes.get("purpose", "training"))
        with self.ledger() as ledger:
            fewest = max(self.rule.smallest_cohort, self.study.federation.quorum)
            return answer_leg(ledger, self.files, task, lambda _run: replace(self.rule, smallest_cohort=fewest))

    def row_kinds(self) -> list[str]:
        from tests.support.ledgers import rows_of

        with self.ledger() as ledger:
            return [row["kind"] for row in rows_of(ledger)]


class SumServer:
    """A server of some nodes: it makes their roster, and asks each round's questions."""

    def __init__(self, study: Study, nodes: Sequence[SumNode]) -> None:
        self.study, self.nodes = study, {node.name: node for node in nodes}
        self.roster = self.roster_of([node.entry() for node in nodes])

    def roster_of(self, entries: Sequence[Entry]) -> Roster:
        return Roster.of(RUN, self.study.sha256, sum_numbers(self.study, len(entries)), entries)

    def task(self, number: int = 1, *, roster: Roster | None = None, adapter: Any = ADAPTER) -> TrainTask:
        encoded = (roster or self.roster).to_bytes()
        return TrainTask(self.study.sha256, RUN, number, adapter, wire="int64", roster=encoded)

    def session(self, number: int = 1, adapter: Any = ADAPTER) -> Session:
        adapter_sha256 = self.task(number, adapter=adapter).adapter_sha256
        context = RoundContext(RUN, self.study.sha256, number, adapter_sha256, self.roster.sha256)
        return Session(self.roster, context, LENGTH)

    def question(self, number: int = 1, *, adapter: Any = ADAPTER, roster: bytes | None = None) -> EvaluationTask:
        """Return what an evaluation asks."""
        encoded = self.roster.to_bytes() if roster is None else roster
        return EvaluationTask(self.study.sha256, RUN, number, adapter, roster=encoded)

    def counting(self, number: int = 1) -> Session:
        """Return the session of an evaluation's counts."""
        adapter_sha256 = self.question(number).adapter_sha256
        context = RoundContext(RUN, self.study.sha256, number, adapter_sha256, self.roster.sha256, "evaluation")
        return Session(self.roster, context, 2)

    def ask(self, session: Session, number: int = 1, names: Sequence[str] = NAMES) -> None:
        """Have some nodes add their part."""
        for name in names:
            reply = self.nodes[name].train(self.task(number))
            assert reply.status is Status.TRAINED
            session.add_masked(name, reply.masked)

    def finish(self, session: Session, number: int = 1, names: Sequence[str] = NAMES) -> list[int]:
        """Fix the set, ask the two questions, and return the opened sum."""
        purpose = session.context.purpose
        session.fix()
        question = session.survivors_question()
        for name in session.unsigned:
            if name in names:
                reply = self.nodes[name].leg("survivors", question, number, purpose=purpose)
                assert reply.status is Status.TRAINED
                session.add_signature(name, reply.content)
        for name in session.unopened:
            if name in names:
                reply = self.nodes[name].leg("opening", session.opening_question(name), number, purpose=purpose)
                assert reply.status is Status.TRAINED
                session.add_opening(name, reply.content)
        session.open()
        assert session.total is not None
        return [int(number) for number in session.total]


class Federation:
    """Some nodes and their server."""

    def __init__(self, folder: Path, study: Study | None = None, names: Sequence[str] = NAMES) -> None:
        self.study = study or sum_study()
        self.nodes = {
            name: SumNode(folder, name, self.study, [10**place * k for k in range(LENGTH)]).approve()
            for place, name in enumerate(names)
        }

    @cached_property
    def server(self) -> SumServer:
        return SumServer(self.study, list(self.nodes.values()))
