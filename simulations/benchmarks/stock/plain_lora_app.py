"""Plain LoRA WITHOUT PRIVACY as a ClientApp that keeps its model: what users of Flower's Ray engine write.

Records, trained tensors, steps and the expected batch are those of the study that it is measured beside; a batch is
padded to its longest record.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from client.answer import Trainer
from client.app import build_client_app
from shared.base_models.locate import find
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.records.ragged import Records, load
from shared.study.declaration import Study
from shared.study.tasks import SequenceClassification
from simulations.benchmarks.stock.peft_model import padded, peft_model, trained
from simulations.engines.partition_query import with_partition_query
from simulations.engines.worker import RUN_FOLDER
from simulations.experiment.arms import read_arm
from simulations.experiment.sites import reopen


class PlainSite:
    """Answers a task with an UNPROTECTED update."""

    def __init__(self, study: Study, model: Any, records: Records) -> None:
        self._study, self._model, self._records = study, model, records

    def train(self, task: TrainTask) -> TrainReply:
        """Take as many plain steps as a round of the study has."""
        study, parameters = self._study, trained(self._model)
        received = torch.from_numpy(task.adapter.copy())
        vector_to_parameters(received.clone(), parameters)  # they become views of what they are given
        optimizer = torch.optim.SGD(parameters, lr=study.training.learning_rate)
        batch = max(1, round(study.privacy.sampling_rate * len(self._records)))
        for _ in range(study.training.local_steps):
            chosen = torch.randperm(len(self._records))[:batch].tolist()
            ids, mask = padded([torch.from_numpy(self._records["ids"][i]).long() for i in chosen])
            targets = torch.tensor([int(self._records["target"][i][0]) for i in chosen])
            optimizer.zero_grad()
            logits = self._model(input_ids=ids, attention_mask=mask).logits
            F.cross_entropy(logits, targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        update = (parameters_to_vector(parameters).detach() - received).numpy().astype(np.float32)
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)


def _open(context: Context, task: TrainTask) -> Trainer:
    torch.set_num_threads(1)
    study = _study(task.study_run)
    return PlainSite(study, _model(task.study_run), _records(int(context.node_config["partition-id"])))


@lru_cache(maxsize=1)
def _study(arm: str) -> Study:
    return read_arm(_folder(), arm).study


@lru_cache(maxsize=1)
def _model(arm: str) -> Any:
    study = _study(arm)
    task, adapter = study.task, study.adapter
    if not isinstance(task, SequenceClassification):
        raise RuntimeError(f"Expected a study of sequence classification, got {task.kind!r}.")
    base = find(study.model).directory
    return peft_model(base, labels=len(task.labels), layers=adapter.layers, rank=adapter.rank).train()


@lru_cache(maxsize=256)
def _records(partition: int) -> Records:
    prepared = reopen(_folder() / "prepared")
    return load(prepared.train_path(prepared.sites[partition]))


def _folder() -> Path:
    return Path(os.environ[RUN_FOLDER])


app = with_partition_query(build_client_app(_open))
