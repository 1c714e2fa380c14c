"""Define the interface of a task kind: from cells to fields, from fields to a loss per record, and to metrics.

No kind may look at two records at once, or at all records to prepare one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from peft import TaskType
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shared.base_models.load import load_tokenizer
from shared.base_models.locate import BaseModelFiles
from shared.records.batches import Batch, Fills
from shared.records.ragged import Encoded, Records
from shared.study.tasks import Task
from shared.tasks.fit import check_example, check_length, check_vocabulary, lengths_of
from shared.tasks.row_by_row import UnusableRowError, encode_each

Cell = str | bytes
Rows = Mapping[str, Sequence[Cell]]
"""Cells by the task's columns; media as the bytes of their files, empty where there is no file."""
MOST_CHARACTERS = 5_000_000
"""A text cell that is longer is not looked into: the bound on what a record's cells cost is public."""
Evidence = tuple[Any, ...]
"""A prediction for one record beside the truth, as plain Python or NumPy values."""


class Column(NamedTuple):
    """A column that a task reads."""

    name: str
    media: bool = False
    """True if a cell names a file, or holds its bytes."""
    optional: bool = False
    """True if a table may lack the column; its cells are then empty."""


class Predictor(Protocol):
    """The model as task kinds use it: a base with an adapter, and the files that the base came from."""

    @property
    def base_files(self) -> BaseModelFiles:
        """The base model's files on this machine."""

    @property
    def config(self) -> PretrainedConfig:
        """Configuration of the base model."""

    @property
    def base(self) -> nn.Module:
        """The whole base model with its adapter, without the task's head."""

    def part_for(self, batch: Batch) -> nn.Module:
        """Return the part of the base that a batch still has to pass."""

    def outputs(self, batch: Batch) -> Tensor:
        """Compute the task's outputs for a batch (records, …)."""

    def losses(self, batch: Batch) -> Tensor:
        """Compute one loss per record of a batch (records,)."""


class TaskKind(ABC):
    """One kind of task, made from a study's declaration."""

    auto: ClassVar[Any] = AutoModel
    """The transformers class of the base model."""
    peft_task: ClassVar[TaskType | None] = TaskType.FEATURE_EXTRACTION
    """PEFT's name for this use of the model."""
    reads: ClassVar[tuple[str, ...]] = ("ids", "types")
    """Fields that the layers below a cut read, as far as a study has them."""
    pooled: ClassVar[bool] = False
    """True if `features` returns one vector per record."""
    metric: str
    """Name of the main metric."""
    higher_is_better: bool = True
    columns: tuple[Column, ...]
    fills: Fills
    """Fields that enter a batch, with their padding."""
    labels: tuple[str, ...] = ()
    """Labels of the study that cells of `label` and `tags` name."""
    fixed_tokens: int = 0
    """Tokens of a record in addition to its padded fields, such as the patches of an image."""
    answers: tuple[str, ...] = ("label", "tags", "answer", "target", "mask", "transcript", "rating")
    """Columns that hold the true answer: users of a finished model leave them out."""

    def processor(self, base_files: BaseModelFiles) -> Any:
        """Load the tool that turns cells into arrays: the base model's tokenizer."""
        return load_tokenizer(base_files)

    def encode(self, rows: Rows, processor: Any) -> Encoded:
        """Encode every row by itself, whatever its cells hold; a row that cannot be used is a problem.

        Raises:
            SettingsError: the study's kind and the base model's files do not go together.
        """
        return encode_each(lambda part: self.encode_rows(part, processor), rows)

    def check(self, task: Task, base: PreTrainedModel, base_files: BaseModelFiles) -> None:
        """Refuse a study whose lengths or tokens its base model does not have: public, and before anything is paid for.

        Args:
            task: as the study declares it.
            base: the base model, with weights or without.
            base_files: its files.

        Raises:
            SettingsError: study and base model do not go together.
        """
        processor = self.processor(base_files)
        if not isinstance(processor, PreTrainedTokenizerBase):
            return  # of images and recordings the processor has compared what there is
        check_vocabulary(base, processor)
        for setting, tokens in lengths_of(task).items():
            check_length(base, setting, tokens)
        check_example(base, lambda: self.encode_rows({column.name: ["a"] for column in self.columns}, processor))

    @abstractmethod
    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode every row by itself; a row that cannot be used gets a placeholder and a problem, or raises."""

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make the head that is trained on the model's features, all zeros; without parameters if the task has none."""
        del config
        return nn.Identity()

    def adapt(self, base: nn.Module) -> None:
        """Change the frozen base model before an adapter is put on it; most kinds change nothing."""
        del base

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute the last hidden states (records, tokens, width) of an encoder or decoder."""
        if "states" in batch:
            inputs = {"inputs_embeds": batch["states"]}
        else:
            inputs = {"input_ids": batch["ids"]}
            if "types" in batch and getattr(base.config, "type_vocab_size", 1) > 1:  # others have no segments
                inputs["token_type_ids"] = batch["types"]
        states: Tensor = base(attention_mask=attention(batch), **inputs).last_hidden_state
        return states

    def frozen(self, part: nn.Module, batch: Batch) -> Tensor:
        """Compute the states (records, tokens, width) at a cut, from the fields that the kind `reads`."""
        return self.run(part, batch)

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Compute the features that the head reads."""
        del batch
        return states

    def answer(self, head: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Compute the head's outputs."""
        del batch
        outputs: Tensor = head(features)
        return outputs

    @abstractmethod
    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute one loss per record (records,), never averaged over the batch."""

    @abstractmethod
    def evidence(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Predict some records, and return each prediction beside the truth."""

    @abstractmethod
    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute metrics by name over usable records; an empty sequence gives the worst values."""

    @abstractmethod
    def score(self, evidence: Evidence) -> float:
        """Return how good the prediction for one record is, from 0 to 1; 1 is right."""

    @abstractmethod
    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make records of these lengths from a public generator; `variant` changes the content of the first one."""

    def counts(self, records: Records) -> dict[str, int]:
        """Count usable records by label, where there are labels. For the operator's eyes only."""
        del records
        return {}

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of the best constant answer for each usable held-out record; None for a task without one.

        A baseline, in simulations only.
        """
        del train, held_out
        return None

    def predict(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Any]:
        """Return the finished model's answer to each record; the records' own answers play no part."""
        return [self.prediction(evidence) for evidence in self.evidence(model, batch, records, indices)]

    def prediction(self, evidence: Evidence) -> Any:
        """Return the prediction in evidence, in the form that users get; None where evidence holds counts alone."""
        return evidence[0]

    def truth(self, evidence: Evidence) -> Any:
        """Return the true answer in evidence, in the form of `prediction`; None where evidence holds counts alone."""
        return evidence[1]


class OutputKind(TaskKind):
    """A kind whose evidence follows from the model's outputs alone: nothing is generated."""

    def evidence(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Compare the model's outputs for these records with what is true."""
        return self.compare(model.outputs(batch), batch, records, indices)

    @abstractmethod
    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return evidence for each record, from its outputs and the record at its index."""


def attention(batch: Batch) -> Tensor | None:
    """Return a batch's mask; None where it has no padding, as for vectorised gradients."""
    return None if "unpadded" in batch else batch.get("mask")


def random_ids(config: PretrainedConfig, lengths: Sequence[int], *, variant: int, seed: int = 20) -> list[list[int]]:
    """Draw token ids from a public generator; `variant` changes those of the first record."""
    size = int(config.get_text_config().vocab_size)
    ids = [np.random.default_rng([seed, n]).integers(5, size, length).tolist() for n, length in enumerate(lengths)]
    if variant:
        ids[0] = np.random.default_rng([seed, 0, variant]).integers(5, size, lengths[0]).tolist()
    return ids


def zero_linear(width: int, outputs: int) -> nn.Linear:
    """Make a head of zeros: every record starts at the same loss, and everyone knows the start."""
    head = nn.Linear(width, outputs)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    return head


def strings(cells: Sequence[Cell]) -> list[str]:
    """Return the cells of a text column as text.

    Raises:
        UnusableRowError: a cell is no text, or a longer one than any record may hold.
    """
    return [_string(cell) for cell in cells]


def _string(cell: Cell) -> str:
    if not isinstance(cell, str | bytes):
        raise UnusableRowError(f"one of its cells is no text, but a {type(cell).__name__}")
    if len(cell) > MOST_CHARACTERS:
        raise UnusableRowError(f"one of its cells has {len(cell)} characters, more than {MOST_CHARACTERS:,}")
    return cell if isinstance(cell, str) else cell.decode("utf-8", "replace")
