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
from client.vault.ledger.state import Books, Limit
from client.vault.review.offers import Offered
from client.vault.review.review import Desk
from client.vault.service.charged_round import AccountableVault
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import Vault, device_for
from shared.adapted_model.evaluation import judge
from shared.adapted_model.frozen_activations import prefix_for
from shared.adapted_model.model import build
from shared.errors import BudgetError, LedgerError, PeerError, PolicyRefusal, RunError, SettingsError
from shared.protocol.messages import Mark, OfferReply, Status, StudyOffer, TrainReply, TrainTask, without_update
from shared.records.ragged import Records
from shared.study.declaration import Study

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Warm:
    """The run in use."""

    run: str
    dataset: str
    vault: Vault


class Vaults:
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
        self._warm: Warm | None = None

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

    def standing(self) -> Mark:
        """Where the ledger stands."""
        with Desk(self._config).ledger() as ledger:
            return Mark(ledger.height, ledger.head)

    def measure(self, task: TrainTask, make_way: Callable[[], None]) -> None:
        """Loss and accuracy of a received adapter on this node's held-out records, into a local file."""
        desk = Desk(self._config)
        warm, settings = self._warm, desk.settings.node
        if not settings.local_metrics or warm is None or warm.run != task.study_run:
            return
        last = warm.vault.last
        if last is None or last.round != task.round:
            return  # sent again, not trained: what may have ended this process once is not done twice
        found: dict[str, float] = {}
        try:
            found = _measured(warm.vault, task, desk, make_way)
        except RunError as error:
            log.warning("Round %d was not measured on held-out records: %s", task.round, error)
        except Exception:
            log.exception("Local metrics of round %d failed; training is not affected.", task.round)
            return
        found |= {"train_seconds": last.seconds, "clip_fraction": last.clip_fraction}
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": task.study_run, "round": task.round}
        with desk.folders.metrics.open("a") as file:
            file.write(json.dumps(line | found) + "\n")
        desk.folders.metrics.chmod(0o600)

    def _answered(self, task: TrainTask) -> TrainReply:
        desk = Desk(self._config)
        try:
            warm = self._opened(desk, task)
            objections = [] if warm is None else self._objections(desk, warm)
        except LedgerError as error:
            log.error("Round %d refused: %s", task.round, error)
            return without_update(task, Status.REFUSED_LEDGER)
        except Exception:
            log.exception("Round %d refused; the server is told only that the policy does not allow it.", task.round)
            return without_update(task, Status.REFUSED_POLICY)
        if warm is None:
            return without_update(task, Status.REFUSED_POLICY)
        accountable = AccountableVault(
            warm.vault,
            desk.ledger,
            dataset=warm.dataset,
            policy_says=lambda books: Status.REFUSED_POLICY if objections else self._policy_says(desk, books, warm),
        )
        return accountable.train(task)

    def _opened(self, desk: Desk, task: TrainTask) -> Warm | None:
        if self._warm is not None and self._warm.run == task.study_run:
            return self._warm
        with desk.ledger() as ledger:
            run = ledger.books.runs.get(task.study_run)
        if run is None or run.study_sha256 != task.study_sha256:
            return None
        self._warm = None  # before the next model is loaded: two may not fit
        self._warm = Warm(task.study_run, run.dataset, self._vault(desk, task.study_run, run.dataset))
        return self._warm

    def _vault(self, desk: Desk, run: str, dataset: str) -> Vault:
        approved, performance = desk.approved, desk.settings.performance
        study = approved.study(run).model_copy(update={"performance": performance})
        if performance.threads:
            torch.set_num_threads(performance.threads)
        model = build(study, desk.foundation(study)).to(device_for(performance.device))

        def opened() -> Records:
            desk.take(run, study, dataset)
            return approved.train(run)

        return Vault(
            study,
            model,
            opened,
            declared_size=approved.declared_size(run),
            randomness=lambda _round: OsRandomness(),
            cache=_private(desk.folders.cache),
            verdicts=_private(desk.folders.cache / "verdicts"),
            on_step=self._on_step,
        )

    def _objections(self, desk: Desk, warm: Warm) -> list[str]:
        """What node.toml has against the study today: it may have become stricter since the approval."""
        if warm.dataset not in desk.settings.datasets:
            return [f"{warm.dataset} is not in node.toml any more"]
        return desk.objections(warm.vault.study, warm.dataset, underway=True)

    def _policy_says(self, desk: Desk, books: Books, warm: Warm) -> Status | None:
        policy = desk.settings.policy(warm.dataset)
        if desk.changed(books, warm.dataset):
            return Status.REFUSED_POLICY
        # the stricter of ledger and node.toml, in both figures: an epsilon means nothing without its delta
        limit = books.limit(warm.dataset).stricter(Limit(policy.epsilon, policy.delta))
        if books.spent_after_round(warm.run, delta=limit.delta) > limit.epsilon:
            return Status.REFUSED_BUDGET
        return None if open_at(policy, self._now()) else Status.REFUSED_HOURS

    def _stance(self, offer: StudyOffer) -> Status:
        """A function of public facts and the ledger: no record is looked at, so none can change the answer."""
        desk = Desk(self._config)
        offered = desk.offers.receive(offer)
        allowed, reason = _allowed(desk, offered.study)
        with desk.ledger() as ledger:
            run = ledger.books.runs.get(offered.run)
            if offered.rejected or (run is not None and run.closed):
                return Status.REJECTED
            if run is not None:
                return Status.APPROVED if run.study_sha256 == offered.study.sha256 else Status.REFUSED_STUDY
            same = [name for name in allowed if not desk.changed(ledger.books, name)]
            if not same:
                return reason
            possible = [name for name in same if desk.fits(ledger.books, offered.study, name)]
            return _approved_by_policy(desk, ledger, offered, possible) if possible else Status.REFUSED_BUDGET

    def _wait_for_slot(self) -> None:
        slot = Desk(self._config).settings.node.release_slot_s
        if slot:
            self._sleep(slot - time.time() % slot)


def _allowed(desk: Desk, study: Study) -> tuple[list[str], Status]:
    """Datasets that node.toml lets the study have, and the reason to give if it has none."""
    try:
        desk.foundation(study)
    except SettingsError:
        return [], Status.REFUSED_MODEL
    return [name for name in desk.settings.datasets if not desk.objections(study, name)], Status.REFUSED_POLICY


def _approved_by_policy(desk: Desk, ledger: Ledger, offered: Offered, possible: list[str]) -> Status:
    name = possible[0]
    unasked = desk.settings.policy(name).approval == "within-policy" and name in ledger.books.limits
    if len(possible) != 1 or not unasked:
        return Status.AWAITING_APPROVAL
    try:
        desk.approve_unasked(ledger, offered.study, name, offered.run)
    except (BudgetError, PolicyRefusal) as error:
        log.error("%s was not approved by itself: %s", offered.run, error)
        return Status.AWAITING_APPROVAL
    log.info("%s was approved by the policy of %s.", offered.run, name)
    return Status.APPROVED


def _measured(vault: Vault, task: TrainTask, desk: Desk, make_way: Callable[[], None]) -> dict[str, float]:
    records = desk.approved.holdout(task.study_run)
    if not len(records):
        return {}
    model, performance = vault.model, vault.study.performance
    model.load(task.adapter)
    folder = _private(desk.folders.cache) if performance.prefix_cache else None
    prefix = prefix_for(model, records, next(model.parameters()).device, performance, folder)
    found = judge(
        model,
        records,
        tokens=performance.micro_batch_tokens,
        batch_of=prefix.batch,
        sizes=prefix.sizes(),
        with_loss=True,
        on_batch=make_way,
    )
    return {"loss": found.loss, **model.kind.metrics(found.evidence)}


def _private(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
