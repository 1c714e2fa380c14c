"""The vault of one node: which run a task is for, what was approved for it, and how this node stands to an offer.

The run in use is kept loaded: model, tokenised records, activations. Everything else is opened from disk once for each
question, so that an operator's decision takes effect with the next one.

A run that the ledger has ended, closed or withdrawn, is forgotten when the operator's command says so over the socket:
at once, which is before that command returns, as soon as the step, the probe or the pass through frozen layers ends
that is under way. A vault that was not told notices at the next question that it does not answer with an update, and
within a minute without one.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from client.policy import objections, open_at, subgroup_columns
from client.vault.ledger.rows import NOTHING_DECLARED
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.review.forgetting import forget_copies, forget_left_over
from client.vault.review.node_files import NodeFiles, open_node
from client.vault.review.review import StudyReview
from client.vault.secure_sum.legs import answer_leg
from client.vault.secure_sum.masked_trainer import MaskedTrainer
from client.vault.secure_sum.sum_files import Identity
from client.vault.service.charged_evaluation import ChargedEvaluation
from client.vault.service.charged_round import ChargedRound
from client.vault.service.local_metrics import write_local_metrics
from client.vault.service.secure_sums import admission, counts_leave, own_policy
from client.vault.service.stance import stance
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import RoundTrainer, device_for
from shared.adapted_model.model import build
from shared.errors import DataError, FedVaultError, LedgerError, PeerError, PolicyRefusal, SettingsError
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LedgerPosition,
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    without_content,
    without_histogram,
    without_update,
)
from shared.records.ragged import Records

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LoadedRun:
    """The run in use."""

    run: str
    dataset: str
    trainer: RoundTrainer


class NodeVault:
    """The vault of one node, for all its datasets and runs.

    Guarantee: of a run that was ended or withdrawn, no record, activation or model stays in memory or in a file.

    Args:
        config: the node's settings; read anew for every question, so that a stricter policy holds at once.
        on_step: told the number of steps done, for progress.
        now: local time, for the policy's hours.
        sleep: waits until a release slot.
    """

    def __init__(
        self,
        config: Path,
        *,
        on_step: Callable[[int], None] = lambda _step: None,
        now: Callable[[], datetime] = datetime.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config, self._on_step, self._now, self._sleep = config, on_step, now, sleep
        self._loaded: LoadedRun | None = None
        self._in_use, self._looking, self._underway = threading.Lock(), threading.Lock(), ""

    def train(self, task: TrainTask) -> TrainReply:
        """Answer one task; never raises for what it or the data holds."""
        try:
            node = open_node(self._config)
        except Exception:
            # a settings file breaks in many ways; nothing was read or paid for yet
            log.exception("Round %d refused: node.toml cannot be used.", task.round)
            return without_update(task, Status.REFUSED_POLICY)
        reply = self._about(task.study_run, lambda: self._train(node, task))
        return self._at_slot(node, reply)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Answer an evaluation; never raises for what it or the data holds."""
        try:
            node = open_node(self._config)
        except Exception:
            log.exception("Evaluation %d refused: node.toml cannot be used.", task.number)
            return without_histogram(task, Status.REFUSED_POLICY)
        return self._at_slot(node, self._about(task.study_run, lambda: self._evaluate(node, task)))

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Keep a study for a person to decide on, and say how this node stands to it."""
        try:
            reply = stance(open_node(self._config), offer)
        except PeerError as error:
            log.error("An offer was refused: %s", error)
            reply = OfferReply(offer.study_run, Status.REFUSED_STUDY)
        except (LedgerError, OSError) as error:
            log.error("An offer was refused: %s", error)
            reply = OfferReply(offer.study_run, Status.REFUSED_LEDGER)
        except DataError as error:
            log.error("An offer was refused: %s %s", error, error.hint)
            reply = OfferReply(offer.study_run, Status.REFUSED_POLICY)
        except Exception:
            # nothing here was trained, but a message could still say something about the data
            log.exception("An offer was refused; the server is told a code only.")
            reply = OfferReply(offer.study_run, Status.REFUSED_POLICY)
        if self._in_use.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._in_use.release()
        return reply

    def leg(self, task: LegTask) -> LegReply:
        """Answer a question of a secure sum; never raises for what it holds. No record is looked at."""
        try:
            node = open_node(self._config)
            with node.open_ledger() as ledger:
                return answer_leg(ledger, node.sums, task, partial(own_policy, node, ledger.state, task))
        except (LedgerError, OSError) as error:
            log.error("A question of the secure sum of round %d was refused: %s", task.round, error)
            return without_content(task, Status.REFUSED_LEDGER)
        except PolicyRefusal as error:
            log.error("A question of the secure sum of round %d was refused: %s", task.round, error)
            return without_content(task, Status.REFUSED_POLICY)
        except Exception:
            log.exception("A question of the secure sum of round %d was refused.", task.round)
            return without_content(task, Status.REFUSED_POLICY)

    def identity(self, run: str, *, name: str, certificate_key: bytes) -> Identity | None:
        """Return this node in the secure sum of a run that stands approved, with keys that are made the first time.

        Args:
            run: as the server calls it.
            name: of this node in the federation.
            certificate_key: public key of its certificate, as DER.

        Returns:
            None if the run has no secure sum or is not approved, or if this node cannot take part in it any more.
        """
        try:
            node = open_node(self._config)
            with node.open_ledger() as ledger:
                approved = ledger.state.runs.get(run)
                if approved is None or ledger.state.is_over(run):
                    return None
                if node.approved.study(run).federation.secure_sum is None:
                    return None
                # what was taken part in with keys that are gone is not done again with others
                identity = node.sums.identity(run) if approved.roster else node.sums.make(run, name, certificate_key)
        except (FedVaultError, OSError) as error:
            log.error("The keys of %s could not be made: %s", run, error)
            return None
        if identity is None or (identity.entry.name, identity.entry.certificate_key) != (name, certificate_key):
            log.error("%s has no keys here of this node's name and certificate: it takes no part in its sum.", run)
            return None
        return identity

    def forget_ended(self, interrupt: Callable[[], None] = lambda: None, *, announced: bool = True) -> None:
        """Forget what the ledger has ended, in memory and in files; when this returns, it is gone.

        Args:
            interrupt: ends the question that is being answered, at its next step.
            announced: an operator's command says that something was ended; if not, it is found out.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        node = open_node(self._config)
        if not (announced or self._loaded or self._underway or node.sums.any or any(node.folders.personal.glob("*"))):
            return
        state = node.ledger_state()
        with self._looking:
            interrupted = state.is_over(self._underway)
            if interrupted:
                interrupt()
        with self._in_use:
            self._forget(node, state, copies=announced or interrupted)

    def ledger_position(self) -> LedgerPosition:
        """Return where the ledger stands."""
        with open_node(self._config).open_ledger() as ledger:
            return ledger.position

    def measure(self, task: TrainTask, make_way: Callable[[], None]) -> None:
        """Measure a received adapter on this node's held-out records, into a local file."""
        self._about(task.study_run, lambda: self._measure(task, make_way))

    def _train(self, node: NodeFiles, task: TrainTask) -> TrainReply:
        reply = self._answer(node, task)
        if reply.status is not Status.TRAINED:
            self._look()
        return reply

    def _measure(self, task: TrainTask, make_way: Callable[[], None]) -> None:
        self._look()
        node, loaded = open_node(self._config), self._loaded
        if node.settings.node.local_metrics and loaded is not None and loaded.run == task.study_run:
            write_local_metrics(node, loaded.trainer, task, make_way)

    def _about(self, run: str, answer: Callable[[], Answer]) -> Answer:
        """Hold what is loaded while something about a run is answered."""
        with self._in_use:
            with self._looking:
                self._underway = run
            try:
                return answer()
            finally:
                with self._looking:
                    self._underway = ""

    def _look(self) -> None:
        """Forget the loaded run if the ledger has ended it; a ledger that cannot be read is said elsewhere."""
        if self._loaded is not None:
            with suppress(FedVaultError, OSError):
                node = open_node(self._config)
                self._forget(node, node.ledger_state())

    def _forget(self, node: NodeFiles, state: LedgerState, *, copies: bool = False) -> None:
        loaded = self._loaded
        over = loaded is not None and state.is_over(loaded.run)
        if over:
            self._loaded = loaded = None
            gc.collect()  # gradient hooks hold on to their model in a circle
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.info("A run was ended; its records, activations and model are forgotten.")
        if over or copies:
            forget_copies(node, state)
        else:
            forget_left_over(node, state)

    def _at_slot(self, node: NodeFiles, reply: Answer) -> Answer:
        slot = node.settings.node.release_slot_s
        if slot:
            self._sleep(slot - time.time() % slot)
        return reply

    def _evaluate(self, node: NodeFiles, task: EvaluationTask) -> EvaluationReply:
        loaded = self._opened(node, task, f"Evaluation {task.number}")
        if isinstance(loaded, Status):
            return without_histogram(task, loaded)
        dataset, trainer = node.datasets.get(loaded.dataset), loaded.trainer

        def held_out() -> Records:
            StudyReview(node).materialise(trainer.study, node.dataset(loaded.dataset), loaded.run)
            return node.approved.holdout(loaded.run)

        reply = ChargedEvaluation(
            trainer,
            held_out,
            node.open_ledger,
            dataset=loaded.dataset,
            randomness=OsRandomness(),
            declared=NOTHING_DECLARED if dataset is None else dataset.limits,
            refusal=partial(self._refusal, trainer, dataset),
            allowed=partial(_evaluates, dataset),
            on_record=lambda: self._on_step(0),  # it may end here; how many records there are is not told
            leaves=counts_leave(node, trainer.study, dataset),
        ).evaluate(task)
        self._loaded = None if trainer.broken else self._loaded
        if reply.status is not Status.EVALUATED:
            self._look()
        return reply

    def _opened(self, node: NodeFiles, task: TrainTask | EvaluationTask, question: str) -> LoadedRun | Status:
        """Return the run of a question with its model, or the public code of why it cannot be opened."""
        try:
            loaded = self._load(node, task)
            if loaded is not None:  # the model in memory is still the one in the folder
                node.base_files(loaded.trainer.study)
        except LedgerError as error:
            log.error("%s refused: %s", question, error)
            return Status.REFUSED_LEDGER
        except SettingsError as error:
            # of the base model's folder, which the study names: nothing else is set up here
            log.error("%s refused for its base model: %s", question, error)
            return Status.REFUSED_MODEL
        except Exception:
            # loading reads records: one code stands for whatever their files hold, and nothing is paid for yet
            log.exception("%s refused; the server is told only that the policy does not allow it.", question)
            return Status.REFUSED_POLICY
        return Status.REFUSED_POLICY if loaded is None else loaded

    def _answer(self, node: NodeFiles, task: TrainTask) -> TrainReply:
        loaded = self._opened(node, task, f"Round {task.round}")
        if isinstance(loaded, Status):
            return without_update(task, loaded)
        dataset = node.datasets.get(loaded.dataset)
        trainer, study = loaded.trainer, loaded.trainer.study
        charged = ChargedRound(
            trainer if study.federation.secure_sum is None else MaskedTrainer(trainer, node.sums),
            node.open_ledger,
            dataset=loaded.dataset,
            declared=NOTHING_DECLARED if dataset is None else dataset.limits,
            refusal=partial(self._refusal, trainer, dataset),
            admit=admission(node, study, dataset),
        )
        reply = charged.train(task)
        if loaded.trainer.broken:
            self._loaded = None  # nothing that a failure left in memory serves another round
        return reply

    def _load(self, node: NodeFiles, task: TrainTask | EvaluationTask) -> LoadedRun | None:
        """Return the task's run, with its model; None if nobody approved it for this study."""
        if self._loaded is not None and self._loaded.run == task.study_run:
            return self._loaded
        with node.open_ledger() as ledger:
            run = ledger.state.runs.get(task.study_run)
        if run is None or run.study_sha256 != task.study_sha256:
            return None
        self._loaded = None  # before the next model is loaded: two may not fit
        self._loaded = LoadedRun(task.study_run, run.dataset, self._trainer(node, task.study_run, run.dataset))
        return self._loaded

    def _trainer(self, node: NodeFiles, run: str, dataset: str) -> RoundTrainer:
        approved, performance = node.approved, node.settings.performance
        declared_size, study = approved.declared_size(run), approved.study(run)
        study = study.model_copy(update={"performance": performance})
        if performance.threads:
            torch.set_num_threads(performance.threads)
        cache, base_files = node.cache_folder(), node.base_files(study)
        return RoundTrainer(
            study,
            build(study, base_files).to(device_for(performance.device)),
            lambda: StudyReview(node).materialise(study, node.dataset(dataset), run),
            declared_size=declared_size,
            randomness=lambda _round: OsRandomness(),
            cache=cache,
            verdicts=cache / "verdicts",
            on_step=self._on_step,
        )

    def _refusal(self, trainer: RoundTrainer, dataset: Dataset | None, state: LedgerState) -> Status | None:
        """Return what node.toml has against a round or evaluation today: it may have become stricter since."""
        rules = None if dataset is None or dataset.changes(state) else dataset.rules(state)
        if dataset is None or rules is None:
            return Status.REFUSED_POLICY
        is_open = open_at(dataset.policy, self._now())
        columns = [dataset.policy.columns.get(column.name, column.name) for column in trainer.model.kind.columns]
        columns += subgroup_columns(dataset.policy, trainer.study)
        study, dimension = trainer.study, trainer.dimension
        both_sides = study.evaluation is not None and state.on_both_sides(dataset.name)
        if objections(rules, study, dimension=dimension, columns=columns, underway=True, both_sides=both_sides):
            return Status.REFUSED_POLICY
        return None if is_open else Status.REFUSED_HOURS


def _evaluates(dataset: Dataset | None, state: LedgerState) -> bool:
    """Return false if node.toml says no to evaluations on the dataset today, or does not know it."""
    return dataset is not None and dataset.rules(state).evaluation != "no"
