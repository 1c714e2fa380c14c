"""Measures the global adapter on a table that the server's operator owns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.adapted_model import build
from shared.foundation import find, load_tokenizer
from shared.protocol import Vector
from shared.sources import read_table
from shared.study import Study

BATCH = 64


def evaluator(
    study: Study, source: Path, *, text_column: str, label_column: str
) -> Callable[[int, Vector], dict[str, Any]]:
    """Load model and table once; what comes back measures an adapter.

    Raises:
        DataError: the table cannot be read.
    """
    table, model = read_table(source, [text_column, label_column]), build(study)
    texts, labels = table[text_column].tolist(), table[label_column].tolist()
    ids, targets = model.kind.tokens(texts, load_tokenizer(find(study.model))), model.kind.targets(texts, labels)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))

    def evaluate(_number: int, adapter: Vector) -> dict[str, Any]:
        model.load(adapter)
        predicted = np.zeros(len(ids), dtype=np.int64)
        with torch.no_grad():
            for start in range(0, len(order), BATCH):
                part = order[start : start + BATCH]
                length = max(len(ids[index]) for index in part)
                padded = torch.tensor([ids[index] + [0] * (length - len(ids[index])) for index in part])
                mask = torch.tensor([[1] * len(ids[index]) + [0] * (length - len(ids[index])) for index in part])
                predicted[part] = model(padded, mask).argmax(dim=1).numpy()
        return model.kind.metrics(predicted, targets) | {"records": int((targets >= 0).sum())}

    return evaluate
