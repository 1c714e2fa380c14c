"""Measuring a received adapter on this node's held-out records: into a local file, never sent."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from client.vault.review.node_files import NodeFiles
from client.vault.training.round_trainer import RoundTrainer
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import activations_for
from shared.errors import RunError
from shared.files import append_private
from shared.protocol.messages import TrainTask

log = logging.getLogger(__name__)


def write_local_metrics(node: NodeFiles, trainer: RoundTrainer, task: TrainTask, make_way: Callable[[], None]) -> None:
    """Measure the adapter of a task that was just trained, and add a line to the node's metrics.

    Args:
        node: whose held-out records are predicted.
        trainer: of the task's run.
        task: the one that it trained last.
        make_way: called now and then; a `RunError` from it ends the measuring.
    """
    last = trainer.last
    if last is None or last.round != task.round:
        return  # sent again, not trained: what may have ended this process once is not done twice
    metrics: dict[str, float] = {}
    try:
        metrics = _measured(node, trainer, task, make_way)
    except RunError as error:
        log.warning("Round %d was not measured on held-out records: %s", task.round, error)
    except Exception:
        # the round is over and its reply is kept: nothing that held-out records do may touch either
        log.exception("Local metrics of round %d failed; training is not affected.", task.round)
        return
    metrics |= {
        "train_seconds": last.seconds,
        "clip_fraction": last.clip_fraction,
        "records_raised": last.records_raised,
    }
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run": task.study_run, "round": task.round}
    append_private(node.folders.metrics, json.dumps(line | metrics) + "\n")


def _measured(
    node: NodeFiles, trainer: RoundTrainer, task: TrainTask, make_way: Callable[[], None]
) -> dict[str, float]:
    records = node.approved.holdout(task.study_run)
    if not len(records):
        return {}
    model, performance = trainer.model, trainer.study.performance
    model.load(task.adapter)
    folder = node.cache_folder() if performance.activation_cache else None
    activations = activations_for(model, records, next(model.parameters()).device, performance, folder, make_way)
    result = evaluate(
        model,
        records,
        tokens=performance.micro_batch_tokens,
        batch_of=activations.batch,
        sizes=activations.sizes(),
        with_loss=True,
        on_batch=make_way,
    )
    return {"loss": result.loss, **model.kind.metrics(result.evidence)}
