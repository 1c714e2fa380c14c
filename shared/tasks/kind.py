"""What a task kind must provide: from a row's cells to fields, from fields to a loss per record, from there to metrics.

Nothing in a kind may look at two records at once, or at all records to prepare one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from peft import TaskType
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from shared.base_models.locate import BaseModelFiles, load_tokenizer
from shared.records.batches import Batch, Fills, attention
from shared.records.ragged import Encoded, Records

Cell = str | bytes
Rows = Mapping[str, Sequence[Cell]]
"""Cells by column of the task; media as the bytes of their files, empty where there is none."""
Evidence = tuple[Any, ...]
"""What was predicted for one record and what is true, as plain Python or NumPy values."""


class Column(NamedTuple):
    """A column that a task reads."""

    name: str
    media: bool = False
    """Whether the cell names a file, or holds its bytes."""
    optional: bool = False
    """Whether a table may lack it: its cells are then empty."""


class Predictor(Protocol):
    """The model that a task kind questions: a base with an adapter, and the files that the base came from."""

    @property
    def base_files(self) -> BaseModelFiles:
        """Where the base model lies on this machine."""

    @property
    def config(self) -> PretrainedConfig:
        """Configuration of the base model."""

    @property
    def base(self) -> nn.Module:
        """The whole base model with its adapter, without the task's head."""

    def part_for(self, batch: Batch) -> nn.Module:
        """The part of the base that a batch still has to pass through."""

    def outputs(self, batch: Batch) -> Tensor:
        """The task's outputs for a batch (records, …)."""

    def losses(self, batch: Batch) -> Tensor:
        """One loss per record of a batch (records,)."""


class TaskKind(ABC):
    """One kind of task, made from what a study declares."""

    auto: ClassVar[Any] = AutoModel
    """The transformers class of the base model."""
    peft_task: ClassVar[TaskType | None] = TaskType.FEATURE_EXTRACTION
    """How PEFT names the adapted model."""
    reads: ClassVar[tuple[str, ...]] = ("ids", "types")
    """Fields that the layers below a cut read, where a study has them."""
    pooled: ClassVar[bool] = False
    """Whether `features` gives one vector per record."""
    metric: str
    """The main metric."""
    higher_is_better: bool = True
    columns: tuple[Column, ...]
    fills: Fills
    """Fields that enter a batch."""
    fixed_tokens: int = 0
    """Tokens of a record beside its padded fields, such as the patches of an image."""
    answers: tuple[str, ...] = ("label", "tags", "answer", "target", "mask", "transcript", "rating")
    """Columns that say what is to be predicted: who asks a finished model leaves them out."""

    def processor(self, base_files: BaseModelFiles) -> Any:
        """What turns cells into arrays: the base model's tokenizer."""
        return load_tokenizer(base_files)

    @abstractmethod
    def encode(self, rows: Rows, processor: Any) -> Encoded:
        """Fields of every row, each row by itself; a row that cannot be used gets a placeholder and a problem."""

    def head(self, config: PretrainedConfig) -> nn.Module:
        """What is trained from scratch on the model's features, all zeros; a module without parameters for none."""
        del config
        return nn.Identity()

    def adapt(self, base: nn.Module) -> None:
        """Change the frozen base model before an adapter is put on it; most kinds leave it as it is."""
        del base

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Last hidden states (records, tokens, width) of an encoder or decoder."""
        if "states" in batch:
            inputs = {"inputs_embeds": batch["states"]}
        else:
            inputs = {"input_ids": batch["ids"]}
            if "types" in batch and getattr(base.config, "type_vocab_size", 1) > 1:  # others know no segments
                inputs["token_type_ids"] = batch["types"]
        states: Tensor = base(attention_mask=attention(batch), **inputs).last_hidden_state
        return states

    def frozen(self, part: nn.Module, batch: Batch) -> Tensor:
        """States (records, tokens, width) of the part below a cut, from the fields that it `reads`."""
        return self.run(part, batch)

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """What the head takes."""
        del batch
        return states

    def answer(self, head: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """The head's outputs."""
        del batch
        outputs: Tensor = head(features)
        return outputs

    @abstractmethod
    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """One loss per record (records,), never averaged over the batch."""

    @abstractmethod
    def evidence(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """What the model says about these records beside what is true, one for each."""

    @abstractmethod
    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Named metrics over usable records; an empty sequence gives the worst values."""

    @abstractmethod
    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Records of these lengths from a public generator; `variant` changes what the first one holds."""

    def counts(self, records: Records) -> dict[str, int]:
        """Usable records by label, where there are labels. For the operator's eyes only."""
        del records
        return {}

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Evidence of the best constant answer, for each usable held-out record in turn; None where a task
        has none. A baseline, in simulations only."""
        del train, held_out
        return None

    def predict(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Any]:
        """What the finished model answers to these records, one answer each; their own answers play no part."""
        return [self.told(found) for found in self.evidence(model, batch, records, indices)]

    def told(self, evidence: Evidence) -> Any:
        """A prediction as users are told it."""
        return evidence[0]


class OutputKind(TaskKind):
    """A kind whose evidence follows from the model's outputs alone: nothing is generated."""

    def evidence(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Compare the model's outputs for these records with what is true."""
        return self.compared(model.outputs(batch), batch, records, indices)

    @abstractmethod
    def compared(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Evidence of each record from its outputs, which the records' places in `records` follow."""


def random_ids(config: PretrainedConfig, lengths: Sequence[int], *, variant: int, seed: int = 20) -> list[list[int]]:
    """Token ids from a public generator; `variant` changes the first record's."""
    size = int(config.get_text_config().vocab_size)
    ids = [np.random.default_rng([seed, n]).integers(5, size, length).tolist() for n, length in enumerate(lengths)]
    if variant:
        ids[0] = np.random.default_rng([seed, 0, variant]).integers(5, size, lengths[0]).tolist()
    return ids


def zero_linear(width: int, outputs: int) -> nn.Linear:
    """A zero head: every record starts at the same loss, and the public start costs nothing to agree on."""
    head = nn.Linear(width, outputs)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    return head


def strings(cells: Sequence[Cell]) -> list[str]:
    """Cells of a text column."""
    return [cell if isinstance(cell, str) else cell.decode("utf-8", "replace") for cell in cells]
