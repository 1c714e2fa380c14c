"""Measures the global adapter on a table that the server's operator owns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import activations_for
from shared.adapted_model.model import build
from shared.protocol.messages import Vector
from shared.study.declaration import Study
from shared.tasks.task_table import Table


def evaluator(
    study: Study, source: Path, columns: Mapping[str, str], *, cache: Path | None = None
) -> Callable[[int, Vector], dict[str, Any]]:
    """Load model and table once; return a function that measures an adapter.

    Args:
        study: as declared.
        source: the table.
        columns: what the task's columns are called in it.
        cache: folder for what the frozen layers make of the table; None computes it at every measurement.

    Raises:
        DataError: the table cannot be read.
    """
    model = build(study)
    reader = Table(model.kind, columns)
    records, _ = reader.encode(reader.read(source), model.kind.processor(model.base_files))
    activations = activations_for(model, records, torch.device("cpu"), study.performance, cache)

    def evaluate_round(_number: int, adapter: Vector) -> dict[str, Any]:
        model.load(adapter)
        tokens = study.performance.micro_batch_tokens
        result = evaluate(model, records, tokens=tokens, batch_of=activations.batch, sizes=activations.sizes())
        return model.kind.metrics(result.evidence) | {"records": len(result.evidence)}

    return evaluate_round
