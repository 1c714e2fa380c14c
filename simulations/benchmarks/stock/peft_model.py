"""The model that a user of PEFT would build, in which the very tensors are trained that a study trains.

It imports nothing of FedVault: what a plain loop takes is measured beside it.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

Shapes = list[tuple[int, ...]]


def peft_model(folder: Path, *, labels: int, layers: str, rank: int) -> Any:
    """Build a sequence classifier with LoRA on query and value; A is fixed and dropout off, as FedVault's default."""
    logging.set_verbosity_error()  # the head is new, and says so at length
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=labels,
        local_files_only=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype=torch.float32,
    )
    count = model.config.num_hidden_layers
    top = list(range(count)) if layers == "all" else list(range(count - int(layers.removeprefix("last:")), count))
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=["query", "value"],
        layers_to_transform=top,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an attribute's older name
        adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
    return adapted


def trained(model: Any) -> list[torch.nn.Parameter]:
    """Return the parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def shapes_of(model: Any) -> Shapes:
    """Return the shapes of all trained tensors, in a canonical order."""
    return sorted(tuple(parameter.shape) for parameter in trained(model))


def refuse_other_tensors(ours: Shapes, theirs: Shapes) -> None:
    """Refuse to compare two models that do not train the same tensors.

    Raises:
        RuntimeError: they do not.
    """
    if ours != theirs:
        raise RuntimeError(f"Expected both to train the same tensors, got {ours} and {theirs}.")


def plain_round(folder: Path, prepared: Path, labels: int, layers: str, rank: int) -> Shapes:
    """Train one round WITHOUT PRIVACY on micro-batches that were cut elsewhere; return the trained tensors.

    Args:
        folder: of the base model.
        prepared: JSON: logical batches, each a list of physical ones {ids, targets}, each a list over its records.
        labels: outputs of the head.
        layers: as a study declares them.
        rank: of LoRA.
    """
    model = peft_model(folder, labels=labels, layers=layers, rank=rank).train()
    optimizer = torch.optim.SGD(trained(model), lr=0.1)
    for logical in json.loads(prepared.read_text()):
        optimizer.zero_grad()
        size = sum(len(physical["targets"]) for physical in logical)
        for physical in logical:
            rows, targets = [torch.tensor(ids) for ids in physical["ids"]], torch.tensor(physical["targets"])
            ids, mask = padded(rows)
            logits = model(input_ids=ids, attention_mask=mask).logits
            loss = F.cross_entropy(logits, targets, reduction="sum") / size
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return shapes_of(model)


def padded(rows: Sequence[Tensor], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask (records, length), padded to the longest record or to a length."""
    longest = length or max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return ids, mask
