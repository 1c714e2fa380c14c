"""All that a vault process answers: which run a task is for, what was approved for it, and how a study on offer stands.

The run in use is kept warm: model, tokenised records, activations. Everything else is opened from disk when asked for,
so that an operator's decision takes effect with the next question.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from client.policy import open_at
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import LedgerState, Limit
from client.vault.review.offers import Offered
from client.vault.review.review import StudyReview
from client.vault.service.charged_round import ChargedRound
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import RoundTrainer, device_for
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import activations_for
from shared.adapted_model.model import build
from shared.errors import BudgetError, LedgerError, PeerError, PolicyRefusal, RunError, SettingsError
from shared.files import append_private
from shared.protocol.messages import (
    LedgerPosition,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    without_update,
)
from shared.records.ragged import Records
from shared.study.declaration import Study

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRun:
    """The run in use."""

    run: str
    dataset: str
    vault: RoundTrainer


class NodeVault:
    """The vault of one node, for all its datasets and runs.

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
        self._warm: LoadedRun | None = None

    def train(self, task: TrainTask) -> TrainReply:
        """Answer one task; never raises for what it or the data holds."""
        reply = self._answered(task)
        self._wait_for_slot()
        return reply

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Keep a study for a person to decide on, and say how this node stands to it."""
        try:
            status = self._stance(offer)
        except PeerError as error:
            log.error("An offer was refused: %s", error)
            status = Status.REFUSED_STUDY
        except (LedgerError, OSError) as error:
            log.error("An offer was refused: %s", error)
            status = Status.REFUSED_LEDGER
        except Exception:
            # nothing here was trained, but a message could still say something about the data
            log.exception("An offer was refused; the server is told a code only.")
            status = Status.REFUSED_POLICY
        return OfferReply(offer.study_run, status)

    def ledger_position(self) -> LedgerPosition:
        """Where the ledger stands."""
        with StudyReview(self._config).ledger() as ledger:
            return LedgerPosition(ledger.height, ledger.head)

    def measure(self, task: TrainTask, make_way: Callable[[], None]) -> None:
        """Loss and accuracy of a received adapter on this node's held-out records, into a local file."""
        review = StudyReview(self._config)
        warm, settings = self._warm, review.settings.node
        if not settings.local_metrics or warm is None or warm.run != task.study_run:
            return
        last = warm.vault.last
        if last is None or last.round != task.round:
            return  # sent again, not trained: what may have ended this process once is not done twice
        found: dict[str, float] = {}
        try:
            found = _measured(warm.vault, task, review, make_way)
        except RunError as error:
            log.warning("Round %d was not measured on held-out records: %s", task.round, error)
        except Exception:
            log.exception("Local metrics of round %d failed; training is not affected.", task.round)
            return
        found |= {"train_seconds": last.seconds, "clip_fraction": last.clip_fraction}
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": task.study_run, "round": task.round}
        append_private(review.folders.metrics, json.dumps(line | found) + "\n")

    def _answered(self, task: TrainTask) -> TrainReply:
        review = StudyReview(self._config)
        try:
            warm = self._opened(review, task)
            objections = [] if warm is None else self._objections(review, warm)
        except LedgerError as error:
            log.error("Round %d refused: %s", task.round, error)
            return without_update(task, Status.REFUSED_LEDGER)
        except Exception:
            log.exception("Round %d refused; the server is told only that the policy does not allow it.", task.round)
            return without_update(task, Status.REFUSED_POLICY)
        if warm is None:
            return without_update(task, Status.REFUSED_POLICY)
        charged = ChargedRound(
            warm.vault,
            review.ledger,
            dataset=warm.dataset,
            policy_says=lambda state: Status.REFUSED_POLICY if objections else self._policy_says(review, state, warm),
        )
        return charged.train(task)

    def _opened(self, review: StudyReview, task: TrainTask) -> LoadedRun | None:
        if self._warm is not None and self._warm.run == task.study_run:
            return self._warm
        with review.ledger() as ledger:
            run = ledger.state.runs.get(task.study_run)
        if run is None or run.study_sha256 != task.study_sha256:
            return None
        self._warm = None  # before the next model is loaded: two may not fit
        self._warm = LoadedRun(task.study_run, run.dataset, self._vault(review, task.study_run, run.dataset))
        return self._warm

    def _vault(self, review: StudyReview, run: str, dataset: str) -> RoundTrainer:
        approved, performance = review.approved, review.settings.performance
        study = approved.study(run).model_copy(update={"performance": performance})
        if performance.threads:
            torch.set_num_threads(performance.threads)
        model = build(study, review.base_files(study)).to(device_for(performance.device))

        def opened() -> Records:
            review.take(run, study, dataset)
            return approved.train(run)

        return RoundTrainer(
            study,
            model,
            opened,
            declared_size=approved.declared_size(run),
            randomness=lambda _round: OsRandomness(),
            cache=_private(review.folders.cache),
            verdicts=_private(review.folders.cache / "verdicts"),
            on_step=self._on_step,
        )

    def _objections(self, review: StudyReview, warm: LoadedRun) -> list[str]:
        """What node.toml has against the study today: it may have become stricter since the approval."""
        if warm.dataset not in review.settings.datasets:
            return [f"{warm.dataset} is not in node.toml any more"]
        return review.objections(warm.vault.study, warm.dataset, underway=True)

    def _policy_says(self, review: StudyReview, state: LedgerState, warm: LoadedRun) -> Status | None:
        policy = review.settings.policy(warm.dataset)
        if review.changed(state, warm.dataset):
            return Status.REFUSED_POLICY
        # the stricter of ledger and node.toml, in both figures: an epsilon means nothing without its delta
        limit = state.limit(warm.dataset).stricter(Limit(policy.epsilon, policy.delta))
        if state.spent_after_round(warm.run, delta=limit.delta) > limit.epsilon:
            return Status.REFUSED_BUDGET
        return None if open_at(policy, self._now()) else Status.REFUSED_HOURS

    def _stance(self, offer: StudyOffer) -> Status:
        """A function of public facts and the ledger: no record is looked at, so none can change the answer."""
        review = StudyReview(self._config)
        offered = review.offers.receive(offer)
        allowed, reason = _allowed(review, offered.study)
        with review.ledger() as ledger:
            run = ledger.state.runs.get(offered.run)
            if offered.rejected or (run is not None and run.closed):
                return Status.REJECTED
            if run is not None:
                return Status.APPROVED if run.study_sha256 == offered.study.sha256 else Status.REFUSED_STUDY
            same = [name for name in allowed if not review.changed(ledger.state, name)]
            if not same:
                return reason
            possible = [name for name in same if review.fits(ledger.state, offered.study, name)]
            return _approved_by_policy(review, ledger, offered, possible) if possible else Status.REFUSED_BUDGET

    def _wait_for_slot(self) -> None:
        slot = StudyReview(self._config).settings.node.release_slot_s
        if slot:
            self._sleep(slot - time.time() % slot)


def _allowed(review: StudyReview, study: Study) -> tuple[list[str], Status]:
    """Datasets that node.toml lets the study have, and the reason to give if it has none."""
    try:
        review.base_files(study)
    except SettingsError:
        return [], Status.REFUSED_MODEL
    return [name for name in review.settings.datasets if not review.objections(study, name)], Status.REFUSED_POLICY


def _approved_by_policy(review: StudyReview, ledger: Ledger, offered: Offered, possible: list[str]) -> Status:
    name = possible[0]
    unasked = review.settings.policy(name).approval == "within-policy" and name in ledger.state.limits
    if len(possible) != 1 or not unasked:
        return Status.AWAITING_APPROVAL
    try:
        review.approve_unasked(ledger, offered.study, name, offered.run)
    except (BudgetError, PolicyRefusal) as error:
        log.error("%s was not approved by itself: %s", offered.run, error)
        return Status.AWAITING_APPROVAL
    log.info("%s was approved by the policy of %s.", offered.run, name)
    return Status.APPROVED


def _measured(
    vault: RoundTrainer, task: TrainTask, review: StudyReview, make_way: Callable[[], None]
) -> dict[str, float]:
    records = review.approved.holdout(task.study_run)
    if not len(records):
        return {}
    model, performance = vault.model, vault.study.performance
    model.load(task.adapter)
    folder = _private(review.folders.cache) if performance.activation_cache else None
    activations = activations_for(model, records, next(model.parameters()).device, performance, folder)
    found = evaluate(
        model,
        records,
        tokens=performance.micro_batch_tokens,
        batch_of=activations.batch,
        sizes=activations.sizes(),
        with_loss=True,
        on_batch=make_way,
    )
    return {"loss": found.loss, **model.kind.metrics(found.evidence)}


def _private(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
