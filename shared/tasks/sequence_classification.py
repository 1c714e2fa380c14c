"""Sequence classification: a text or a pair with a label, labels or a rating, by a linear head on mean features.

Libraries of metrics are imported where they are called: a process that only trains never loads them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from shared.base_models.load import width_of
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Note, Problem, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.cells import DECIMAL_COMMA, composed, listed, names_in, number_in, value_of
from shared.tasks.kind import Column, Evidence, OutputKind, Rows, random_ids, strings, zero_linear
from shared.tasks.texts import mean_features, nothing_to_read, tokenise


class SequenceClassification(OutputKind):
    """The kind `sequence-classification`."""

    pooled = True

    def __init__(self, task: declarations.SequenceClassification) -> None:
        self.task, self.labels = task, task.labels
        self.goal = goal_of(task)
        self.metric, self.higher_is_better = self.goal.metric, self.goal.higher_is_better
        pair = (Column("text_pair"),) if task.pair else ()
        self.columns = (Column("text"), *pair, Column("label"))
        self.fills = {"ids": 0} | ({"types": 0} if task.pair else {}) | {"target": None}

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode token ids and the goal's target; a row without a text or a known label cannot be used."""
        texts, labels = strings(rows["text"]), strings(rows["label"])
        pairs = strings(rows["text_pair"]) if self.task.pair else None
        tokenised = tokenise(texts, processor, max_length=self.task.max_length, pairs=pairs)
        targets = [self.goal.target(label) for label in labels]
        reasons = nothing_to_read(texts, tokenised)
        for row, target in enumerate(targets):
            if target is None:
                reasons.setdefault(row, f"its label {labels[row][:40]!r} {self.goal.objection(labels[row])}")
        problems = [*tokenised.problems, *(Problem(*reason) for reason in sorted(reasons.items()))]
        problems += spelling_notes(self.goal, labels) + range_notes(self.goal, labels)
        usable = [row not in reasons for row in range(len(texts))]
        fields = {
            "ids": ragged(tokenised.ids, np.int32),
            "target": ragged([self.goal.placeholder if t is None else t for t in targets], self.goal.dtype),
        }
        if self.task.pair:
            types = tokenised.types or [[0] * len(ids) for ids in tokenised.ids]
            fields["types"] = ragged(types, np.int8)
        return Encoded(Records(fields, np.array(usable, dtype=bool)), tuple(problems))

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make a head with one output per label, or one for a rating."""
        return zero_linear(width_of(config), self.goal.outputs)

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Average over real tokens, scaled to one length."""
        return mean_features(states, batch)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the goal's loss of each record."""
        return self.goal.losses(outputs, batch["target"])

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return predicted and true value of each record, in the goal's form."""
        del batch
        predicted = self.goal.predicted(outputs)
        return [(guess, self.goal.truth(records["target"][i])) for guess, i in zip(predicted, indices, strict=True)]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute the goal's metrics."""
        return self.goal.metrics(evidence)

    def score(self, evidence: Evidence) -> float:
        """Return the goal's score of one prediction."""
        return self.goal.score(*evidence)

    def prediction(self, evidence: Evidence) -> Any:
        """Return the predicted label, list of labels, or rating."""
        return self.goal.readable(evidence[0])

    def truth(self, evidence: Evidence) -> Any:
        """Return the true label, list of labels, or rating."""
        return self.goal.readable(evidence[1])

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens, with labels in turn."""
        targets = [self.goal.synthetic(n + (variant if n == 0 else 0)) for n in range(len(lengths))]
        fields = {
            "ids": ragged(random_ids(config, lengths, variant=variant), np.int32),
            "target": ragged(targets, self.goal.dtype),
        }
        if self.task.pair:
            fields["types"] = ragged([[0] * (n // 2) + [1] * (n - n // 2) for n in lengths], np.int8)
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def counts(self, records: Records) -> dict[str, int]:
        """Count usable records by label."""
        return self.goal.counts([records["target"][i] for i in np.flatnonzero(records.usable).tolist()])

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always predicting the most frequent label, or the mean rating."""
        seen = [part["target"][i] for part in train for i in np.flatnonzero(part.usable).tolist()]
        guess = self.goal.constant(seen)
        return [(guess, self.goal.truth(held_out["target"][i])) for i in np.flatnonzero(held_out.usable).tolist()]


class OneLabel:
    """Exactly one label per record."""

    metric, higher_is_better = "accuracy", True
    dtype: Any = np.int64
    placeholder: Any = -1

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.outputs = len(self.labels)
        self._index = {label: number for number, label in enumerate(self.labels)}
        values = [value_of(label) for label in self.labels]
        self._by_value = {
            value: number for number, value in enumerate(values) if value is not None and values.count(value) == 1
        }
        by_composed = {composed(label): number for number, label in enumerate(self.labels)}
        self._by_composed = by_composed if len(by_composed) == len(self.labels) else {}

    def target(self, cell: str) -> Any:
        """Return the index of a label; None for an unknown one."""
        return self._index_of(cell.strip())

    def converted(self, cell: str) -> bool:
        """Return whether a cell names a label of the study in another spelling."""
        return cell.strip() not in self._index and self.target(cell) is not None

    def _index_of(self, name: str) -> int | None:
        """Return the index of a label as it stands, or else of the one that is the same number, truth value or text."""
        if name in self._index:
            return self._index[name]
        by_value = self._by_value.get(value_of(name) or "")
        return self._by_composed.get(composed(name)) if by_value is None else by_value

    def objection(self, cell: str) -> str:
        """Return what is wrong with a cell that `target` returns None for."""
        del cell
        return "is none of the study's"

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy of each record; 0 where the target is -1."""
        return F.cross_entropy(outputs, targets[:, 0], reduction="none", ignore_index=-1)

    def predicted(self, outputs: Tensor) -> list[Any]:
        """Return the likeliest label of each record, by index."""
        likeliest: list[Any] = outputs.argmax(dim=1).cpu().tolist()
        return likeliest

    def truth(self, target: NDArray[Any]) -> Any:
        """Return the index of the true label."""
        return int(target[0])

    def readable(self, predicted: Any) -> Any:
        """Return the label of an index."""
        return self.labels[predicted]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute accuracy, and F1 averaged over the labels."""
        if not evidence:
            return {"accuracy": 0.0, "macro_f1": 0.0}
        from sklearn.metrics import accuracy_score, f1_score

        guess, truth = zip(*evidence, strict=True)
        f1 = f1_score(truth, guess, average="macro", labels=np.arange(self.outputs), zero_division=0.0)
        return {"accuracy": float(accuracy_score(truth, guess)), "macro_f1": float(f1)}

    def score(self, guess: Any, truth: Any) -> float:
        """Return 1 for the right label, otherwise 0."""
        return float(guess == truth)

    def synthetic(self, number: int) -> Any:
        """Return labels in turn."""
        return number % self.outputs

    def counts(self, targets: Sequence[NDArray[Any]]) -> dict[str, int]:
        """Count records by label."""
        counts = np.bincount([int(t[0]) for t in targets], minlength=self.outputs)
        return dict(zip(self.labels, counts.tolist(), strict=True))

    def constant(self, targets: Sequence[NDArray[Any]]) -> Any:
        """Return the most frequent label, by index."""
        return int(np.bincount([int(t[0]) for t in targets], minlength=self.outputs).argmax())


class ManyLabels(OneLabel):
    """Any number of labels per record."""

    metric, dtype = "macro_f1", np.float32

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.placeholder = [0.0] * self.outputs

    def target(self, cell: str) -> Any:
        """Return 1 for each label that the cell names, otherwise 0; None for an unknown label or a list with one twice.

        A list that names a label twice holds a 0 or 1 for each label, as many tools write them.
        """
        if names_in(cell) is not None and self._repeated(cell):
            return None
        indices = self._indices(cell)
        return None if None in indices else [float(number in indices) for number in range(self.outputs)]

    def objection(self, cell: str) -> str:
        """Return what is wrong with a cell that `target` returns None for."""
        if names_in(cell) is None or not self._repeated(cell):
            return super().objection(cell)
        return "names a label twice: a list holds the names of a record's labels, not 0 or 1 for each"

    def _repeated(self, cell: str) -> bool:
        indices = self._indices(cell)
        return None not in indices and len(set(indices)) < len(indices)

    def _indices(self, cell: str) -> list[int | None]:
        return [self._index_of(part.strip()) for part in listed(cell) if part.strip()]

    def converted(self, cell: str) -> bool:
        """Return whether a cell names labels of the study, some in another spelling."""
        named = [part.strip() for part in listed(cell) if part.strip()]
        return any(name not in self._index for name in named) and self.target(cell) is not None

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the binary cross-entropy, averaged over the labels of each record."""
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)

    def predicted(self, outputs: Tensor) -> list[Any]:
        """Return 1 for each label that is likelier than not, otherwise 0."""
        decisions: list[Any] = (outputs > 0).int().cpu().tolist()
        return decisions

    def truth(self, target: NDArray[Any]) -> Any:
        """Return 1 for each true label, otherwise 0."""
        return target.astype(int).tolist()

    def readable(self, predicted: Any) -> Any:
        """Return the names of the predicted labels."""
        return [label for label, has in zip(self.labels, predicted, strict=True) if has]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute F1 averaged over labels, F1 over all decisions, and the share of records with every label right."""
        if not evidence:
            return {"macro_f1": 0.0, "micro_f1": 0.0, "exact_match": 0.0}
        from sklearn.metrics import f1_score

        guess, truth = (np.array(part) for part in zip(*evidence, strict=True))
        return {
            "macro_f1": float(f1_score(truth, guess, average="macro", zero_division=0.0)),
            "micro_f1": float(f1_score(truth, guess, average="micro", zero_division=0.0)),
            "exact_match": float((truth == guess).all(axis=1).mean()),
        }

    def score(self, guess: Any, truth: Any) -> float:
        """Return the share of the labels that are predicted or true, or of all if none is, that are both (Jaccard)."""
        both = sum(g and t for g, t in zip(guess, truth, strict=True))
        either = sum(g or t for g, t in zip(guess, truth, strict=True))
        return both / either if either else 1.0

    def synthetic(self, number: int) -> Any:
        """Return one label each, in turn."""
        return np.eye(self.outputs)[number % self.outputs].tolist()

    def counts(self, targets: Sequence[NDArray[Any]]) -> dict[str, int]:
        """Count records by label."""
        sums = np.sum([*targets, np.zeros(self.outputs)], axis=0)
        return {label: int(count) for label, count in zip(self.labels, sums, strict=True)}

    def constant(self, targets: Sequence[NDArray[Any]]) -> Any:
        """Return the labels that most records have."""
        return (np.mean([*targets, np.zeros(self.outputs)], axis=0) > 0.5).astype(int).tolist()


class Rating:
    """A number in a public range, learned on the scale from -1 to 1."""

    metric, higher_is_better, dtype, placeholder, outputs = "mse", False, np.float32, 0.0, 1

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest, self.highest = lowest, highest
        self.middle, self.half = (lowest + highest) / 2, (highest - lowest) / 2

    def target(self, cell: str) -> Any:
        """Return the rating on the scale from -1 to 1, cut off at its ends; None for what is no number."""
        rating = number_in(cell.strip())
        return None if rating is None else float(np.clip((rating - self.middle) / self.half, -1, 1))

    def objection(self, cell: str) -> str:
        """Return what is wrong with a cell that `target` returns None for."""
        del cell
        return "is no number"

    def out_of_range(self, cell: str) -> bool:
        """Return whether a cell's number is outside of the range, and was cut off."""
        rating = number_in(cell.strip())
        return rating is not None and not self.lowest <= rating <= self.highest

    def converted(self, cell: str) -> bool:
        """Return whether a cell has a comma before its decimals."""
        return DECIMAL_COMMA.fullmatch(cell.strip()) is not None

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the squared error of each record."""
        return (outputs - targets).square().sum(1)

    def predicted(self, outputs: Tensor) -> list[Any]:
        """Return the predicted ratings, cut off at the range's ends."""
        scaled = outputs[:, 0].clamp(-1, 1).double().cpu().numpy()
        return [float(self.middle + self.half * value) for value in scaled]

    def truth(self, target: NDArray[Any]) -> Any:
        """Return the true rating."""
        return float(self.middle + self.half * target[0])

    def readable(self, predicted: Any) -> Any:
        """Return the rating unchanged."""
        return predicted

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute the mean squared error in units of the rating, and Spearman's rank correlation (0 if undefined)."""
        if not evidence:
            return {"mse": float(4 * self.half**2), "spearman": 0.0}
        from scipy.stats import spearmanr

        guess, truth = (np.array(part, dtype=float) for part in zip(*evidence, strict=True))
        varied = np.ptp(guess) > 0 and np.ptp(truth) > 0
        return {
            "mse": float(np.mean((guess - truth) ** 2)),
            "spearman": float(spearmanr(guess, truth).statistic) if varied else 0.0,
        }

    def score(self, guess: Any, truth: Any) -> float:
        """Return 1 less the error, as a share of the range."""
        return float(1 - abs(guess - truth) / (2 * self.half))

    def synthetic(self, number: int) -> Any:
        """Return ratings all over the range, on the scale from -1 to 1."""
        return (number % 5) / 2 - 1

    def counts(self, targets: Sequence[NDArray[Any]]) -> dict[str, int]:
        """Count records in the lower and the upper half of the range."""
        upper = sum(bool(t[0] >= 0) for t in targets)
        return {f"below {self.middle:g}": len(targets) - upper, f"{self.middle:g} and above": upper}

    def constant(self, targets: Sequence[NDArray[Any]]) -> Any:
        """Return the mean rating."""
        scaled = float(np.mean([t[0] for t in targets])) if targets else 0.0
        return self.middle + self.half * scaled


Goal = OneLabel | ManyLabels | Rating


def spelling_notes(goal: Goal, cells: Sequence[str]) -> list[Problem]:
    """Return a note on each label or rating that stands in another spelling than the study's."""
    kind = "labels or ratings were read from another spelling (1.0 for 1, TRUE for true, 3,5 for 3.5, or in Unicode)"
    return [
        Problem(row, Note(f"{cell.strip()[:40]!r} is another spelling", kind=kind))
        for row, cell in enumerate(cells)
        if goal.converted(cell)
    ]


def range_notes(goal: Goal, cells: Sequence[str]) -> list[Problem]:
    """Return a note on each rating outside of the study's range; other goals have none."""
    if not isinstance(goal, Rating):
        return []
    kind = f"ratings lie outside of rating_range, and were read as {goal.lowest:g} or {goal.highest:g}"
    return [
        Problem(row, Note(f"{cell.strip()[:40]!r} is out of range", kind=kind))
        for row, cell in enumerate(cells)
        if goal.out_of_range(cell)
    ]


def goal_of(task: declarations.SequenceClassification) -> Goal:
    """Return the goal that a study declares: one label, many labels, or a rating."""
    if task.problem == "rating":
        lowest, highest = task.rating_range or (0.0, 1.0)
        return Rating(lowest, highest)
    return (OneLabel if task.problem == "single-label" else ManyLabels)(task.labels)
