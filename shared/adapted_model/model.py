"""Build the model that is trained: a frozen base with its adapter, and a head, cut where training begins."""

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from shared.adapted_model import adapters
from shared.adapted_model.dry_run import refuse_what_cannot_run
from shared.adapted_model.head_strategy import NOTHING_TO_MEASURE, strategy_for
from shared.base_models import layers
from shared.base_models.load import in_our_words, load_base, width_of
from shared.base_models.loaded_weights import check_loaded
from shared.base_models.locate import BaseModelFiles, find
from shared.base_models.mapped_weights import give_back
from shared.errors import SettingsError
from shared.records.batches import Batch, collate
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.tasks.kind import TaskKind
from shared.tasks.registry import task_kind


class AdaptedModel(nn.Module):
    """Base, adapter and head as one module; adapter and head are trainable.

    Guarantee: a study that its base model cannot carry out is refused when it is read, before anything is paid for.

    Raises:
        SettingsError: the study's lengths or tokens are none that the base model has, or nothing is trained.
    """

    def __init__(self, study: Study, base_files: BaseModelFiles, *, with_weights: bool = True) -> None:
        super().__init__()
        self.kind: TaskKind = task_kind(study.task)
        with in_our_words("a base model that suits the task", base_files.directory):
            base_weights = study.model.base_weights
            base = load_base(base_files, self.kind.auto, with_weights=with_weights, base_weights=base_weights)
            if with_weights:
                check_loaded(base, study.model)
            self.kind.check(study.task, base, base_files)
            self.config = base.config
            self.kind.adapt(base)
        self.base_files, self.base_weights = base_files, base_weights
        self.cut = adapters.lowest_trained_layer(base, study.adapter)
        self.base = adapters.attach(base, study.adapter, self.kind.peft_task)
        self.head_strategy = strategy_for(study, self.kind.head(base.config))
        self.head = self.head_strategy.module
        self.layout = adapters.layout_of(self)
        if not self.layout.tensors:
            raise SettingsError(
                f"Expected something to train, got adapter.method={study.adapter.method!r} and a task without a head.",
                hint="Choose an adapter, such as adapter.method = 'ffa-lora'.",
            )
        self.width = width_of(base.config)
        self.head_only = study.adapter.method == "head-only" and self.kind.pooled
        # a tuple hides the views from nn.Module: they share their parameters with `base`
        self._parts = (layers.below(base, self.cut), layers.above(base, self.cut)) if self.cut else None
        self.trainable = [p for p in self.parameters() if p.requires_grad]  # now or in a round that measures
        # before round 1, the same for everyone; nothing is known of it without weights
        self.start = self.packed() if with_weights else np.zeros(0, np.float32)
        self.measuring = False
        self.measure(False)
        self.eval()
        if not with_weights:
            refuse_what_cannot_run(self, study.task)

    def measure(self, on: bool) -> None:
        """Train what the head's strategy measures, or everything else; `losses` follow.

        Raises:
            SettingsError: the study measures nothing.
        """
        if on and not self.head_strategy.measures:
            raise SettingsError(NOTHING_TO_MEASURE)
        measured = self.head_strategy.measured
        self.measuring = on
        for parameter in self.trainable:
            parameter.requires_grad_((parameter is measured) == on)

    @property
    def has_frozen_layers(self) -> bool:
        """True if whole layers lie below the first trained tensor."""
        return self._parts is not None or self.head_only

    @property
    def frozen_fields(self) -> tuple[str, ...]:
        """Fields that `frozen_states` reads."""
        return tuple(name for name in self.kind.reads if name in self.kind.fills)

    @property
    def frozen_id(self) -> str:
        """Name of the frozen activations: the base model, and where it is cut."""
        return self.frozen_id_at("pooled" if self.head_only else self.cut or 0)

    def frozen_id_at(self, cut: int | Literal["pooled"]) -> str:
        """Return the name of the frozen activations at another cut of the same base model."""
        held = "" if self.base_weights == "float32" else f"-{self.base_weights}"
        return f"{self.base_files.fingerprint[:16]}{held}-{cut}"

    def state_rows(self, records: Records, *, pooled: bool | None = None) -> NDArray[np.int64]:
        """Return the number of frozen states of each record (records,): one if they are pooled, else one per token."""
        if self.head_only if pooled is None else pooled:
            return np.ones(len(records), dtype=np.int64)
        if "ids" in self.frozen_fields:
            return records["ids"].lengths
        return np.full(len(records), self._fixed_rows, dtype=np.int64)

    @cached_property
    def _fixed_rows(self) -> int:
        """Number of states of an image or a recording, counted on an example: not every configuration names it."""
        one = self.kind.synthetic(self.config, [1], variant=0)
        fills = {name: self.kind.fills[name] for name in self.frozen_fields}
        assert self._parts is not None  # noqa: S101 - asked only of a model that is cut
        with torch.no_grad():
            batch = collate(one, [0], fills, next(self.parameters()).device)
            return int(self.kind.frozen(self._parts[0], self.read(batch)).shape[1])

    def pooled_from(self, cut: int, batch: Batch) -> Tensor:
        """Compute pooled features (records, width) of the frozen base from the states at a lower cut."""
        with torch.no_grad():
            return self._run(layers.above(self.base, cut), batch)

    def frozen_states(self, batch: Batch) -> Tensor:
        """Run the layers below the lowest trained one (records, tokens, width); no gradient ever flows here.

        If only a head on pooled features is trained, return those features (records, 1, width).
        """
        with torch.no_grad():
            if self.head_only:
                return self._run(self.base, batch).unsqueeze(1)
            if self._parts is None:
                raise ValueError("a model that is not cut has no frozen layers below")
            return at_least_float32(self.kind.frozen(self._parts[0], self.read(batch)))

    def rest_frozen_layers(self) -> None:
        """Give back the memory of the frozen layers, where the system allows it, once their activations are stored."""
        give_back((self.base if self._parts is None else self._parts[0]).parameters())

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The base model, and what it was cut into: all that runs on a record before the head."""
        return (self.base, *(self._parts or ()))

    def part_for(self, batch: Batch) -> nn.Module:
        """Return the part that a batch still has to pass: above the cut if it holds states, otherwise the base."""
        return self._parts[1] if self._parts is not None and "states" in batch else self.base

    def outputs(self, batch: Batch) -> Tensor:
        """Compute the task's outputs (records, …), from frozen states if the batch holds them."""
        return self.kind.answer(self.head, self._features(batch), batch)

    def _features(self, batch: Batch) -> Tensor:
        if self.head_only and "states" in batch:
            return batch["states"].squeeze(1)
        return self._run(self.part_for(batch), batch)

    def _run(self, part: nn.Module, batch: Batch) -> Tensor:
        states = self.kind.run(part, self.read(batch))
        return self.kind.features(states if self.base_weights == "float32" else at_least_float32(states), batch)

    def read(self, batch: Batch) -> Batch:
        """Return a batch in the numbers that the base model reads."""
        if self.base_weights == "float32":
            return batch
        dtype = next(p.dtype for p in self.base.parameters() if p.is_floating_point())
        return {name: each.to(dtype) if each.is_floating_point() else each for name, each in batch.items()}

    def losses(self, batch: Batch) -> Tensor:
        """Compute one loss per record (records,); 0 for a record that cannot be used."""
        if self.measuring:
            losses = self.head_strategy.measuring_losses(self._features(batch))
        else:
            losses = self.kind.losses(self.outputs(batch), batch)
        return torch.where(batch["usable"], losses, torch.zeros_like(losses))

    def forward(self, batch: Batch) -> Tensor:
        """Compute outputs in one uncut pass: for users, and to check `frozen_states` and `outputs` against."""
        return self.outputs({name: tensor for name, tensor in batch.items() if name != "states"})

    def load(self, packed: NDArray[np.float32]) -> None:
        """Take over a packed adapter, and the measurements in it."""
        adapters.unpack(self, self.layout, packed)
        self.head_strategy.take_over()

    def packed(self) -> NDArray[np.float32]:
        """Return the trainable state as one vector."""
        return adapters.pack(self, self.layout)

    def plain_head(self) -> nn.Module:
        """Return the head in a form that others can load, without anything of ours."""
        return self.head_strategy.plain()

    def peft_model(self) -> PeftModel | None:
        """Return the base with its adapter in PEFT's own type; None if only the head is trained."""
        return self.base if isinstance(self.base, PeftModel) else None


def at_least_float32(states: Tensor) -> Tensor:
    """Return what a base model computed in numbers that heads, losses and stored activations are made of."""
    return states.float() if states.dtype == torch.bfloat16 else states


def build(study: Study, base_files: BaseModelFiles | None = None) -> AdaptedModel:
    """Load the study's base model, from its source or from `base_files`, and make it trainable."""
    # a GPU would round the factors of convolutions to ten bits: a batch then differs from its records by 5e-4, not 2e-6
    torch.backends.cudnn.allow_tf32 = False
    return AdaptedModel(study, base_files or find(study.model))


def layout_of(study: Study, base_files: BaseModelFiles | None = None) -> adapters.Layout:
    """Return names and shapes of the tensors that a study trains, without loading weights."""
    return AdaptedModel(study, base_files or find(study.model), with_weights=False).layout


def initial_adapter(study: Study, base_files: BaseModelFiles | None = None) -> NDArray[np.float32]:
    """Return the packed adapter before round 1, which is public and the same for everyone."""
    if study.adapter.method in ("ffa-lora", "head-only"):
        return np.zeros(layout_of(study, base_files).length, np.float32)
    return build(study, base_files).packed()
