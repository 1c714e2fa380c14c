"""The model that is trained: a frozen encoder with its adapter, and a head; cut where training begins."""

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from shared import adapters, layers
from shared.foundation import Foundation, find, load_encoder
from shared.study import Study
from shared.tasks.kinds import TaskKind, task_kind


class AdaptedModel(nn.Module):
    """Encoder, adapter and head as one module; trainable are B and the head."""

    def __init__(self, study: Study, foundation: Foundation, *, with_weights: bool = True) -> None:
        super().__init__()
        base = load_encoder(foundation, with_weights=with_weights)
        self.kind: TaskKind = task_kind(study.task)
        self.cut = adapters.lowest_trained_layer(base, study.adapter)
        self.encoder = adapters.attach(base, study.adapter)
        self.head = self.kind.head(int(base.config.hidden_size))
        self.vocabulary_size = int(base.config.vocab_size)
        self.layout = adapters.layout_of(self)
        self.head_only = study.adapter.method == "head-only" and bool(self.cut)
        self._fingerprint = foundation.fingerprint
        # a tuple hides the views from nn.Module: they share their parameters with `encoder`
        self._parts = (layers.below(base, self.cut), layers.above(base, self.cut)) if self.cut else None
        self.eval()

    @property
    def frozen_prefix(self) -> bool:
        """Whether whole layers lie below the first trained tensor."""
        return self._parts is not None

    @property
    def prefix_id(self) -> str:
        """Names what `prefix` computes: the base model, and where it is cut."""
        return f"{self._fingerprint[:16]}-pooled" if self.head_only else self.prefix_id_at(self.cut or 0)

    def prefix_id_at(self, cut: int) -> str:
        """The name for a cut elsewhere in the same base model."""
        return f"{self._fingerprint[:16]}-{cut}"

    def pooled_from(self, cut: int, states: Tensor, mask: Tensor) -> Tensor:
        """Pooled features (records, width) of the frozen encoder, from the states at a lower cut."""
        with torch.no_grad():
            return self.kind.features(layers.run(layers.above(self.encoder, cut), mask, inputs_embeds=states), mask)

    def prefix(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Everything below the lowest trained layer; no gradient ever flows here. Uncut, the ids themselves."""
        if self._parts is None:
            return ids
        with torch.no_grad():
            states = layers.run(self._parts[0], mask, input_ids=ids)
            return self.kind.features(states, mask).unsqueeze(1) if self.head_only else states

    def outputs(self, below: Tensor, mask: Tensor) -> Tensor:
        """Logits (records, labels) from what `prefix` gave."""
        if self.head_only:
            return self._logits(below.squeeze(1))
        if self._parts is None:
            return self._logits(self.kind.features(layers.run(self.encoder, mask, input_ids=below), mask))
        return self._logits(self.kind.features(layers.run(self._parts[1], mask, inputs_embeds=below), mask))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits in one uncut pass: the oracle for `prefix` and `outputs`, and what users of the result call."""
        return self._logits(self.kind.features(layers.run(self.encoder, mask, input_ids=ids), mask))

    def load(self, packed: NDArray[np.float32]) -> None:
        """Take over a packed adapter."""
        adapters.unpack(self, self.layout, packed)

    def packed(self) -> NDArray[np.float32]:
        """The trainable state as one vector."""
        return adapters.pack(self, self.layout)

    def peft_model(self) -> PeftModel | None:
        """The encoder with its adapter in PEFT's own type; None if only the head is trained."""
        return self.encoder if isinstance(self.encoder, PeftModel) else None

    def _logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits


def build(study: Study, foundation: Foundation | None = None) -> AdaptedModel:
    """Load the study's base model, from where the study says or from `foundation`, and make it trainable."""
    return AdaptedModel(study, foundation or find(study.model))


def layout_of(study: Study, foundation: Foundation | None = None) -> adapters.Layout:
    """Names and shapes of what the study trains, without loading weights."""
    return AdaptedModel(study, foundation or find(study.model), with_weights=False).layout
