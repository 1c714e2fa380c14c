"""Recommendation: the rating of a text about an item, and of the ids beside it, by a linear head on all of it.

Ids are hashed to fixed public directions, so no table of users or items is learned, agreed on or sent: one row of the
head serves every id, also ones that appear later.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.base_models.load import width_of
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged, text, texts
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Evidence, OutputKind, Rows, random_ids, strings, zero_linear
from shared.tasks.sequence_classification import Rating, range_notes
from shared.tasks.texts import mean_features, nothing_to_read, tokenise

BEST = 10


class Recommendation(OutputKind):
    """The kind `recommendation`."""

    pooled = True

    def __init__(self, task: declarations.Recommendation) -> None:
        self.task, self.ranking = task, task.goal == "ranking"
        self.rating = Rating(*task.rating_range)
        self.metric, self.higher_is_better = ("ndcg_at_10", True) if self.ranking else ("mse", False)
        named = tuple(Column(name) for name in task.ids)
        group = (Column("group"),) if self.ranking and "group" not in task.ids else ()
        self.columns = (Column("text"), Column("rating"), *named, *group)
        self.fills = {"ids": 0, "target": None} | ({"directions": None} if task.ids else {})

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode token ids, directions of the ids, and the rating; a row without text or rating is unusable.

        An empty id has no direction, and a row with an empty group is not ranked.
        """
        cells, ratings = strings(rows["text"]), strings(rows["rating"])
        tokenised = tokenise(cells, processor, max_length=self.task.max_length)
        targets = [self.rating.target(rating) for rating in ratings]
        reasons = nothing_to_read(cells, tokenised)
        for row, target in enumerate(targets):
            if target is None:
                reasons.setdefault(row, f"its rating {ratings[row][:40]!r} is no number")
        problems = [*tokenised.problems, *(Problem(*reason) for reason in sorted(reasons.items()))]
        problems += range_notes(self.rating, ratings)
        usable = [row not in reasons for row in range(len(cells))]
        fields = {
            "ids": ragged(tokenised.ids, np.int32),
            "target": ragged([0.0 if target is None else target for target in targets], np.float32),
            "group": texts(strings(rows["group"]) if self.ranking else [""] * len(cells)),
        }
        if self.task.ids:
            named = list(zip(*(strings(rows[name]) for name in self.task.ids), strict=True))
            fields["directions"] = ragged([self._directions(values) for values in named], np.float32)
        return Encoded(Records(fields, np.array(usable, dtype=bool)), tuple(problems))

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make a head that computes one rating from the text's features and the ids' directions."""
        return zero_linear(width_of(config) + len(self.task.ids) * self.task.id_width, 1)

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Average over real tokens, scaled to one length."""
        return mean_features(states, batch)

    def answer(self, head: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Compute the rating, on the scale from -1 to 1."""
        known = torch.cat([features, batch["directions"]], dim=1) if self.task.ids else features
        outputs: Tensor = head(known)
        return outputs

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the squared error of each record, even for a ranking: a loss over pairs would tie records."""
        return self.rating.losses(outputs, batch["target"])

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return predicted and true rating of each record, and its group."""
        del batch
        predicted = self.rating.predicted(outputs)
        return [
            (guess, self.rating.truth(records["target"][i]), text(records["group"], i))
            for guess, i in zip(predicted, indices, strict=True)
        ]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute squared error and rank correlation; for a ranking also the mean NDCG@10 of groups."""
        errors = self.rating.metrics([(guess, truth) for guess, truth, _ in evidence])
        if not self.ranking:
            return errors
        lowest = self.rating.middle - self.rating.half
        return {"ndcg_at_10": ndcg_of_groups(evidence, lowest=lowest)} | errors

    def score(self, evidence: Evidence) -> float:
        """Return 1 less the error, as a share of the range."""
        return self.rating.score(*evidence[:2])

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens and ids, with ratings all over the range."""
        shifts = [n + (variant if n == 0 else 0) for n in range(len(lengths))]
        fields = {
            "ids": ragged(random_ids(config, lengths, variant=variant), np.int32),
            "target": ragged([self.rating.synthetic(shift) for shift in shifts], np.float32),
            "group": texts(["" for _ in lengths]),
        }
        if self.task.ids:
            directions = [self._directions([str(shift)] * len(self.task.ids)) for shift in shifts]
            fields["directions"] = ragged(directions, np.float32)
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def counts(self, records: Records) -> dict[str, int]:
        """Count records in the lower and the upper half of the range."""
        return self.rating.counts([records["target"][i] for i in np.flatnonzero(records.usable).tolist()])

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always predicting the mean rating, by which all orders of a group are equally likely."""
        seen = [part["target"][i] for part in train for i in np.flatnonzero(part.usable).tolist()]
        guess = self.rating.constant(seen)
        rows = np.flatnonzero(held_out.usable).tolist()
        return [(guess, self.rating.truth(held_out["target"][i]), text(held_out["group"], i)) for i in rows]

    def _directions(self, values: Sequence[str]) -> NDArray[np.float32]:
        named = zip(self.task.ids, values, strict=True)
        return np.concatenate([direction(name, value, width=self.task.id_width) for name, value in named])


def direction(column: str, value: str, *, width: int) -> NDArray[np.float32]:
    """Return the fixed public direction of length 1 for an id (width,), by bits of its hash; zeros for an empty id."""
    if not value.strip():
        return np.zeros(width, np.float32)
    named = f"fedvault id {column}={value.strip()}".encode("utf-8", "replace")
    bits = np.unpackbits(np.frombuffer(hashlib.shake_128(named).digest(-(-width // 8)), dtype=np.uint8))[:width]
    signs: NDArray[np.float32] = ((2.0 * bits - 1.0) / np.sqrt(width)).astype(np.float32)
    return signs


def ndcg_of_groups(evidence: Sequence[Evidence], *, lowest: float) -> float:
    """Compute the mean NDCG@10 over groups with at least two different ratings; 0 if there is no such group.

    Gains are counted from the lowest rating. Equal guesses count as all their orders, equally likely.
    """
    groups = defaultdict[str, list[tuple[float, float]]](list)
    for guess, truth, group in evidence:
        if group.strip():
            groups[group].append((guess, truth - lowest))
    ranked = [list(zip(*group, strict=True)) for group in groups.values() if len({gain for _, gain in group}) > 1]
    if not ranked:
        return 0.0
    from sklearn.metrics import ndcg_score

    return float(np.mean([ndcg_score([gains], [guesses], k=BEST) for guesses, gains in ranked]))
