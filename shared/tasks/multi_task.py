"""Multi-task: several text tasks on one adapter, each with a linear head of its own.

Every record belongs to one task, and only that task's loss counts for it. All heads run on every record, because the
computation must not depend on whose record it is; heads are small beside the model.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Ragged, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Evidence, OutputKind, Rows, strings
from shared.tasks.registry import task_kind

SHARED = ("ids", "types")


class MultiTask(OutputKind):
    """The kind `multi-task`."""

    metric = "mean_score"

    def __init__(self, task: declarations.MultiTask) -> None:
        self.task = task
        self.parts = {name: cast(OutputKind, task_kind(part)) for name, part in task.tasks.items()}
        self.labels = tuple(label for part in self.parts.values() for label in part.labels)
        self.columns = (Column("task"), *_all_columns(self.parts.values()))
        shared = {name: 0 for name in SHARED if any(name in part.fills for part in self.parts.values())}
        own = {
            f"{name}.{field}": fill
            for name, part in self.parts.items()
            for field, fill in part.fills.items()
            if field not in SHARED
        }
        self.fills = shared | {"member": None} | own
        self._widths: dict[str, int] = {}

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode each row by its own task, with placeholders for all others; a row of an unknown task is unusable."""
        named = [cell.strip() for cell in strings(rows["task"])]
        table = _Assembly(self, len(named), processor)
        problems = [
            Problem(row, f"its task {name[:40]!r} is none of the study's")
            for row, name in enumerate(named)
            if name not in self.parts
        ]
        for name, part in self.parts.items():
            chosen = [row for row, other in enumerate(named) if other == name]
            if chosen:
                own = {column.name: [rows[column.name][row] for row in chosen] for column in part.columns}
                records, part_problems = part.encode(own, processor)
                table.place(name, chosen, records)
                problems += [Problem(chosen[row], reason) for row, reason in part_problems]
        return Encoded(table.records(), tuple(problems))

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make one head per task, by name."""
        heads = {name: part.head(config) for name, part in self.parts.items()}
        self._widths = {name: cast(int, head.out_features) for name, head in heads.items()}
        return nn.ModuleDict({_key(name): head for name, head in heads.items()})

    def answer(self, head: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Compute the outputs of all heads, side by side (records, outputs)."""
        outputs = []
        for name, part in self.parts.items():
            own = self._own(name, batch)
            outputs.append(
                part.answer(cast(nn.ModuleDict, head)[_key(name)], part.features(features, own), own).flatten(1)
            )
        return torch.cat(outputs, dim=1)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the loss of each record's own task."""
        split = self._split(outputs, batch)
        each = [part.losses(split[name], self._own(name, batch)) for name, part in self.parts.items()]
        return (torch.stack(each, dim=1) * batch["member"]).sum(1)

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return the name of each record's task, and that task's evidence."""
        split, member = self._split(outputs, batch), batch["member"].argmax(1).tolist()
        evidence: dict[int, Evidence] = {}
        for number, (name, part) in enumerate(self.parts.items()):
            rows = [row for row, task in enumerate(member) if task == number]
            if rows:
                own = {field: tensor[rows] for field, tensor in self._own(name, batch).items()}
                view, places = self._view(name, records), [indices[row] for row in rows]
                answers = part.compare(split[name][rows], own, view, places)
                evidence |= {row: (name, *one) for row, one in zip(rows, answers, strict=True)}
        return [evidence[row] for row in range(len(indices))]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute every task's own metrics, and the mean of the main metrics of tasks that have records.

        A rating counts by its rank correlation: an error does not fit into a mean of shares.
        """
        named, scores = dict[str, float](), list[float]()
        for name, part in self.parts.items():
            own = [tuple(one[1:]) for one in evidence if one[0] == name]
            metrics = part.metrics(own)
            named |= {f"{name}_{metric}": value for metric, value in metrics.items()}
            if own:
                scores.append(metrics[part.metric if part.higher_is_better else "spearman"])
        return {"mean_score": float(np.mean(scores)) if scores else 0.0} | named

    def prediction(self, evidence: Evidence) -> Any:
        """Return the prediction of the record's own task."""
        return self.parts[evidence[0]].prediction(evidence[1:])

    def truth(self, evidence: Evidence) -> Any:
        """Return the true answer of the record's own task."""
        return self.parts[evidence[0]].truth(evidence[1:])

    def score(self, evidence: Evidence) -> float:
        """Return the score of the record's own task."""
        return self.parts[evidence[0]].score(evidence[1:])

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens; tasks repeat every four records, so that all tasks have some."""
        parts = {name: part.synthetic(config, lengths, variant=variant) for name, part in self.parts.items()}
        fields: dict[str, Ragged] = {}
        for name, records in parts.items():
            fields |= {
                field if field in SHARED else f"{name}.{field}": entries for field, entries in records.fields.items()
            }
        turns = min(4, len(parts))
        member = [[float(task % turns == n % 4 % turns) for task in range(len(parts))] for n in range(len(lengths))]
        return Records(fields | {"member": ragged(member, np.float32)}, np.ones(len(lengths), dtype=bool))

    def counts(self, records: Records) -> dict[str, int]:
        """Return the counts of each task, under its name."""
        return {
            f"{name}: {label}": count
            for name, part in self.parts.items()
            for label, count in part.counts(self._of(name, records)).items()
        }

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of each task's own constant answer."""
        answers: dict[str, Iterator[Evidence]] = {}
        for name, part in self.parts.items():
            guesses = part.constant([self._of(name, records) for records in train], self._of(name, held_out))
            answers[name] = iter(guesses or ())
        names = list(self.parts)
        tasks = [names[held_out["member"][row].argmax()] for row in np.flatnonzero(held_out.usable).tolist()]
        return [(name, *next(answers[name])) for name in tasks]

    def _own(self, name: str, batch: Batch) -> Batch:
        """Return a batch with the fields of one task."""
        own = {field: tensor for field, tensor in batch.items() if "." not in field and field != "member"}
        prefix = f"{name}."
        return own | {field.removeprefix(prefix): t for field, t in batch.items() if field.startswith(prefix)}

    def _view(self, name: str, records: Records) -> Records:
        """Return all records with the fields of one task."""
        prefix = f"{name}."
        fields = {
            field.removeprefix(prefix): entries for field, entries in records.fields.items() if field.startswith(prefix)
        }
        return Records(fields | {field: records[field] for field in SHARED if field in records.fields}, records.usable)

    def _of(self, name: str, records: Records) -> Records:
        """Return the records of one task."""
        number = list(self.parts).index(name)
        rows = [row for row in range(len(records)) if records["member"][row][number] > 0]
        return self._view(name, records).select(np.array(rows, dtype=np.int64))

    def _split(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Split the outputs by head, each in the shape that its task made."""
        tokens = batch["mask"].shape[1]
        shapes = [
            (self._widths[name],) if part.pooled else (tokens, self._widths[name]) for name, part in self.parts.items()
        ]
        pieces = torch.split(outputs, [int(np.prod(shape)) for shape in shapes], dim=1)
        return {name: piece.reshape(-1, *shape) for name, piece, shape in zip(self.parts, pieces, shapes, strict=True)}


class _Assembly:
    """Fields of all tasks, filled with placeholders until a task places its records."""

    def __init__(self, kind: MultiTask, rows: int, processor: Any) -> None:
        self._names, self._fills = list(kind.parts), kind.fills
        self._usable = np.zeros(rows, dtype=bool)
        self._member = np.zeros((rows, len(self._names)), np.float32)
        self._cells: dict[str, list[Any]] = {}
        self._dtypes: dict[str, Any] = {}
        for name, part in kind.parts.items():
            empty = part.encode({column.name: [""] for column in part.columns}, processor).records
            for field, entries in empty.fields.items():
                full = _full(name, field)
                per_token = field != "ids" and self._fills.get(full) is not None
                self._dtypes[full] = entries.values.dtype
                self._cells.setdefault(full, [None if per_token else entries[0]] * rows)

    def place(self, name: str, rows: Sequence[int], records: Records) -> None:
        """Put one task's records into their rows."""
        self._usable[list(rows)] = records.usable
        self._member[list(rows), self._names.index(name)] = 1.0
        for field, entries in records.fields.items():
            for row, place in enumerate(rows):
                self._cells[_full(name, field)][place] = entries[row]

    def records(self) -> Records:
        """Return the records of all tasks, with placeholders of a record's length in other tasks' fields per token."""
        lengths = [len(ids) for ids in self._cells["ids"]]
        for field, fill in self._fills.items():
            if fill is not None:
                cells = zip(self._cells[field], lengths, strict=True)
                self._cells[field] = [np.full(n, fill) if cell is None else cell for cell, n in cells]
        fields = {field: ragged(cells, self._dtypes[field]) for field, cells in self._cells.items()}
        return Records(fields | {"member": ragged(list(self._member), np.float32)}, self._usable)


def _key(name: str) -> str:
    """Name a task's head: the task itself may be called like one of PyTorch's attributes."""
    return f"{name}_head"


def _full(name: str, field: str) -> str:
    return field if field in SHARED else f"{name}.{field}"


def _all_columns(parts: Any) -> tuple[Column, ...]:
    """Return every column that some task reads, once; a table without rows of a task may lack its columns."""
    columns: dict[str, Column] = {}
    for column in (column for part in parts for column in part.columns):
        columns[column.name] = column._replace(optional=True)
    return tuple(columns.values())
