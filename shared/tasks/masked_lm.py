"""Masked language modelling: some of a text's tokens are masked, and the model's own language head fills them in.

The head belongs to the base model and stays unchanged. A checkpoint without one gets its own input embeddings as output
embeddings: frozen and the same for everyone, where transformers would use random weights.
"""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel

from shared.base_models.load import width_of
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Evidence, OutputKind, Rows, random_ids, strings
from shared.tasks.texts import each_token_loss, token_losses, tokenise

log = logging.getLogger(__name__)
LARGEST_LOSS = 50.0  # nats; keeps the perplexity finite


class TiedHead(nn.Module):
    """Scores words by the similarity of their input embeddings to the state; everyone has the same embeddings."""

    def __init__(self, embeddings: nn.Embedding) -> None:
        super().__init__()
        self.weight, self.scale = embeddings.weight, 2 * math.log(embeddings.num_embeddings)

    def forward(self, states: Tensor) -> Tensor:
        """Compute cosines, scaled so that one word like the state outweighs a vocabulary of others."""
        return self.scale * F.normalize(states, dim=-1) @ F.normalize(self.weight, dim=-1).T


class EncoderWithLanguageHead:
    """Loads an encoder, with its frozen language head as its attribute `language_head`."""

    @staticmethod
    def from_pretrained(directory: Any, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Load encoder and head, and return what was loaded; a head that is wholly absent is replaced."""
        model, loading = AutoModelForMaskedLM.from_pretrained(directory, **options)
        absent = _absent_head(model, loading["missing_keys"])
        encoder = _taken_apart(model, absent=absent)
        return encoder, loading | {"missing_keys": set(loading["missing_keys"]) - absent}

    @staticmethod
    def from_config(config: PretrainedConfig, **options: Any) -> PreTrainedModel:
        """Make encoder and head without weights."""
        encoder = _taken_apart(AutoModelForMaskedLM.from_config(config, **options), absent=frozenset())
        _refuse_other_heads(encoder)
        return encoder


class MaskedLanguageModel(OutputKind):
    """The kind `masked-lm`."""

    auto = EncoderWithLanguageHead
    metric, higher_is_better = "pseudo_perplexity", False
    columns = (Column("text"),)

    def __init__(self, task: declarations.MaskedLanguageModel) -> None:
        self.task = task
        self.fills = {"ids": 0, "where": 0, "target": -1}
        self._language_head: nn.Module = nn.Identity()

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode token ids with some of them masked, the masked places, and the tokens that were there.

        A row is unusable if its text has no token that could be masked.
        """
        if processor.mask_token_id is None:
            raise SettingsError(f"Expected a tokenizer with a mask token, got {type(processor).__name__}.")
        tokenised = tokenise(strings(rows["text"]), processor, max_length=self.task.max_length)
        marks = frozenset(processor.all_special_ids)
        places = [masked_places(ids, marks, fraction=self.task.masked) for ids in tokenised.ids]
        masked = [np.array(ids, dtype=np.int32) for ids in tokenised.ids]
        targets = [ids[where] for ids, where in zip(masked, places, strict=True)]
        for ids, where in zip(masked, places, strict=True):
            ids[where] = processor.mask_token_id
        usable = np.array([len(where) > 0 for where in places], dtype=bool)
        problems = [Problem(int(row), "its text holds no token to mask") for row in np.flatnonzero(~usable)]
        fields = {
            "ids": ragged(masked, np.int32),
            "where": ragged(places, np.int32),
            "target": ragged(targets, np.int32),
        }
        return Encoded(Records(fields, usable), (*tokenised.problems, *problems))

    def adapt(self, base: nn.Module) -> None:
        """Detach the language head from the encoder; it becomes the model's head."""
        self._language_head = cast(nn.Module, base.language_head)
        del base.language_head

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Return the base model's own head, frozen."""
        del config
        return self._language_head

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Select the states of the masked tokens; scores of the others would not be used."""
        where = batch["where"].unsqueeze(-1)
        return states.gather(1, where.expand(*where.shape[:-1], states.shape[-1]))

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the cross-entropy, averaged over the masked tokens of each record."""
        return token_losses(outputs, batch["target"])

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return for each record's masked tokens: sum of losses in nats, how many were guessed, how many there are."""
        targets = batch["target"]
        surprise = each_token_loss(outputs, targets).double().sum(1)
        hits = (outputs.argmax(-1) == targets).sum(1)  # padding is -1, which no token is
        counts = [len(records["target"][index]) for index in indices]
        return list(zip(surprise.tolist(), hits.tolist(), counts, strict=True))

    def prediction(self, evidence: Evidence) -> None:
        """Return nothing: evidence counts tokens that were guessed."""

    def truth(self, evidence: Evidence) -> None:
        """Return nothing, likewise."""

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute pseudo-perplexity and accuracy over all masked tokens; each is predicted with later tokens, too."""
        surprise, hits, count = (sum(part) for part in zip((0.0, 0, 0), *evidence, strict=True))
        loss = min(surprise / count, LARGEST_LOSS) if count else LARGEST_LOSS
        return {"pseudo_perplexity": math.exp(loss), "masked_accuracy": hits / max(1, count)}

    def score(self, evidence: Evidence) -> float:
        """Return the share of masked tokens that were guessed."""
        _, hits, count = evidence
        return float(hits / max(1, count))

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens, of which every third is masked."""
        ids = [np.array(part, dtype=np.int32) for part in random_ids(config, lengths, variant=variant)]
        fields = {
            "ids": ragged(ids, np.int32),
            "where": ragged([np.arange(1, length, 3) for length in lengths], np.int32),
            "target": ragged([part[1::3][::-1] for part in ids], np.int32),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of guessing each token by how often it was masked in training, with add-one smoothing."""
        seen = Counter[int]()
        for part in train:
            seen.update(part["target"].values.tolist())
        total = sum(seen.values()) + len(seen) + 1
        likeliest = seen.most_common(1)[0][0] if seen else -1
        targets = [held_out["target"][i].tolist() for i in np.flatnonzero(held_out.usable).tolist()]
        return [
            (sum(math.log(total / (seen[token] + 1)) for token in each), each.count(likeliest), len(each))
            for each in targets
        ]


def masked_places(ids: Sequence[int], marks: Collection[int], *, fraction: float) -> list[int]:
    """Choose the tokens to mask by a hash of the record alone: at least one, never a special one.

    The choice has no key and never changes: every pass, every cache and every machine masks the same tokens.
    """
    places = [place for place, token in enumerate(ids) if token not in marks]
    count = min(len(places), max(1, round(fraction * len(places))))
    content = np.array(ids, dtype="<i4").tobytes()
    ranks = np.frombuffer(hashlib.shake_128(b"fedvault mask " + content).digest(8 * len(places)), dtype="<u8")
    return sorted(places[rank] for rank in np.argsort(ranks, kind="stable")[:count].tolist())


def _taken_apart(model: PreTrainedModel, *, absent: Collection[str]) -> PreTrainedModel:
    encoder = model.base_model
    _, head = _head_of(model)
    if absent:
        log.warning("The base model has no language head (%s): its own embeddings take its place, frozen.", min(absent))
        head = TiedHead(encoder.get_input_embeddings())
    encoder.language_head = head
    loaded: PreTrainedModel = encoder
    return loaded


def _refuse_other_heads(encoder: PreTrainedModel) -> None:
    """Refuse a head that gives no scores by token, such as one with a loss of its own; shapes suffice to see it."""
    head = cast(nn.Module, encoder.language_head)
    device = next(encoder.parameters()).device
    if not isinstance(head(torch.zeros(1, 1, width_of(encoder.config), device=device)), Tensor):
        raise SettingsError(
            f"Expected an encoder with a language head of scores, got model type {encoder.config.model_type!r}.",
            hint="BERT, RoBERTa and models like them have one.",
        )


def _head_of(model: PreTrainedModel) -> tuple[str, nn.Module]:
    others = [(name, module) for name, module in model.named_children() if module is not model.base_model]
    if model.base_model is model or len(others) != 1:
        raise SettingsError(
            f"Expected an encoder with one language head, got model type {model.config.model_type!r}.",
            hint="BERT, RoBERTa and models like them have one.",
        )
    return others[0]


def _absent_head(model: PreTrainedModel, missing: Collection[str]) -> frozenset[str]:
    """Return the missing names of the language head if the file holds nothing of it; a part of a head is a fault."""
    place = f"{_head_of(model)[0]}."
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    shared = {*tied, *tied.values()}
    own = {name for name, _ in model.named_parameters() if name.startswith(place)} - shared
    absent = frozenset(key for key in missing if key.startswith(place))
    return absent if own <= absent else frozenset()
