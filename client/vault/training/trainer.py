"""The private training loop: Poisson batch, exact per-example gradients, clip, sum, noise, step.

Rules
1. Each unit joins each step independently with probability q; the batch may be empty, and then the step is noise. A
   unit is one record, or all records of one patient, say; its gradient is the mean over its records, clipped as one.
2. The divisor is L = q x a public size, the site's declared one or the study's typical one, never the true one.
3. A logical batch is cut into physical ones whose shape, rows and length, follows from a record's own shape and from
   public numbers, and that are filled up with copies. Matrix kernels depend on shapes alone: so within one
   configuration a record's gradient has the same bits whoever shares its batch and wherever it stands.
4. The number of steps is fixed in advance; nothing seen in the data ends training early.
5. Every physical batch begins without gradients of an earlier one. One that raises is computed again record by record;
   a record that raises by itself has a gradient of zero.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from client.vault.training.linear_gradients import BatchSize, check_gradients, make_per_example, only_linear
from client.vault.training.micro_batches import longest_declared, one_of_each, rows_of_units
from client.vault.training.noise_prefetch import prefetch_noise
from client.vault.training.optimizer import PrivateOptimizer
from client.vault.training.randomness import Randomness
from client.vault.training.vmap_gradients import vectorised_gradients
from shared.adapted_model.frozen_activations import MOST_ROWS, FrozenActivations
from shared.adapted_model.measured import MEASURING_RATE
from shared.adapted_model.model import AdaptedModel
from shared.base_models.checkpointed_layers import checkpointed
from shared.errors import ExactnessError, lacks_memory, may_be_a_records_own
from shared.privacy.noise_schedule import NoiseSchedule
from shared.privacy.releases import SharedGaussian, SubsampledGaussian
from shared.records.batches import LENGTH_STEP, grouped
from shared.study.sections import RECORD

log = logging.getLogger(__name__)
Descent = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
GRADIENT_BYTES = 256 * 2**20  # gradients of records that are there at once
ENTRY_BYTES = 16  # of a gradient: in float32, again where all tensors stand side by side, and in float64
CPU_TOKENS = 512  # enough for a CPU's matrix kernels; rows beyond are filled up in vain where lengths differ
FILLED_UP = 8  # the expected batch has so many physical batches at least: what is filled up stays a small part
FULL_IS_RARE = 4  # one record in eight has no padding, and gets batches of its own: small ones
UNIT_SUMS_BYTES = 64 * 2**20  # gradients of units that are summed up at once, in float64


@dataclass(frozen=True)
class LearningRates:
    """At the first step of the study; public."""

    head: float
    adapter: float


class PrivateTrainer:
    """Trains one model on one dataset under one privacy plan.

    Guarantee: what `train_round` returns depends on a record only through noisy sums that the plan accounts for.
    Guarantee: adding or removing one unit with all its records moves a step's sum by at most `sensitivity(clip_norm)`.
    Guarantee: a record's gradient has the same bits whoever shares its physical batch and wherever it stands there.
    Guarantee: a record that makes the model raise has a gradient of zero, and changes no other record's.
    Guarantee: no gradient of an earlier physical batch, finished or not, is added to a later one.
    Guarantee: a plan that hides more than single records is refused on records that are not grouped by unit.
    Guarantee: a round that measures trains nothing else, and no other round measures.

    Args:
        model: made per-example in place, if only linear layers are trained.
        activations: of the dataset's records.
        plan: noise multiplier, sampling rate, clipping and unit; from the study alone.
        divisor_size: public size in units that each step's sum is divided by, times the sampling rate; from
            `Federation.divisor_size`.
        learning_rates: of the first step.
        micro_batch_tokens: most tokens in a physical batch; performance only.
        precision: of matrix products; performance only.
        one_by_one: whether a physical batch holds one record, because the probe saw bits that depend on company.
        checkpointing: whether layers are computed again in the backward pass; performance only.
        descent: what is done with noisy means, begun anew in every round.

    Raises:
        ExactnessError: the plan's unit and the dataset's differ, so clipping would bound nothing that was promised.
    """

    def __init__(
        self,
        model: AdaptedModel,
        activations: FrozenActivations,
        plan: NoiseSchedule,
        *,
        divisor_size: int,
        learning_rates: LearningRates,
        micro_batch_tokens: int,
        precision: Literal["float32", "bfloat16"] = "float32",
        one_by_one: bool = False,
        checkpointing: bool = False,
        descent: Descent = torch.optim.SGD,
    ) -> None:
        if (plan.unit == RECORD) != (activations.records.units is None):
            kind = "single" if activations.records.units is None else "grouped"
            raise ExactnessError(f"Expected records that suit privacy.unit={plan.unit!r}, got {kind} ones.")
        self.model, self.plan = model, plan
        self.divisor = plan.sampling_rate * divisor_size
        self.learning_rates = learning_rates
        self.micro_batch_tokens, self.precision, self.descent = micro_batch_tokens, precision, descent
        self.one_by_one, self.checkpointing = one_by_one, checkpointing
        self.thrift, self.thrifts = 0, 0  # ways to need less memory that are taken, and that `thrift_probe` has shown
        model.measure(False)
        self.linear = only_linear(model)  # else gradients are vectorised over the whole model
        self.batch_size = make_per_example(model) if self.linear else BatchSize()
        self.train_on(activations)
        # of the last round; private: for the node's operator alone
        self.clip_fraction, self.raised = 0.0, set[int]()

    def train_on(self, activations: FrozenActivations) -> None:
        """Take batches from these activations from now on."""
        self.activations = activations
        self._shapes, self._units = activations.canonical_shapes(self.length_step), activations.records.unit_count
        self._varying, self._device = activations.varying, activations.device.type
        self._longest = longest_declared(self.model.kind)
        self._fixed_tokens = 0 if self.model.head_only else self.model.kind.fixed_tokens

    def train_round(
        self,
        received: NDArray[np.float32],
        *,
        factors: Sequence[float],
        randomness: Randomness,
        release: SubsampledGaussian | None = None,
        on_step: Callable[[int], None] = lambda _step: None,
        measures: bool = False,
    ) -> NDArray[np.float32]:
        """Take `len(factors)` noisy steps from the received adapter; returns new minus received, packed float32.

        Args:
            received: packed adapter.
            factors: of the learning rates, one per step.
            randomness: of the round.
            release: the round's, as it was charged; it is what the plan says, or the round is refused. Default: the
                plan's own, where nothing is charged.
            on_step: told the number of steps done.
            measures: whether the round measures features' moments, and trains nothing else.

        Raises:
            ExactnessError: another release was charged than the plan's, or a tensor moved that is not trained.
            SettingsError: it measures, and the study measures nothing.
        """
        charged = self.plan.release(len(factors)) if release is None else release
        wanted = (self.plan.noise_multiplier, self.plan.sampling_rate, len(factors))
        as_scheduled = (charged.noise_multiplier, charged.sampling_rate, charged.count) == wanted
        if not as_scheduled or isinstance(charged, SharedGaussian):  # whose one step is `summand.shared_summand`
            raise ExactnessError(f"Expected a release as the study plans it, {charged} was charged.")
        self.model.eval()
        self.model.load(received)
        self.raised = set()
        with self.measuring(measures):
            optimizer = self.optimizer(charged)
            for number, factor in enumerate(factors):
                self._step(optimizer, charged, factor, randomness)
                on_step(number + 1)
            self.clip_fraction = int(optimizer.scaled_down) / max(1, optimizer.seen)
            trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        update: NDArray[np.float32] = self.model.packed() - received
        self._check_movement(update, trained)
        return update

    @contextmanager
    def measuring(self, on: bool) -> Iterator[None]:
        """Train for a while what a round that measures does; or, without `on`, what the others do."""
        self.model.measure(on)
        try:
            if self.linear:
                make_per_example(self.model)
            yield
        finally:
            self.model.measure(False)

    @property
    def entries(self) -> int:
        """Numbers that are trained now."""
        return sum(p.numel() for p in self.model.trainable if p.requires_grad)

    def groups(self) -> list[dict[str, Any]]:
        """Return what is trained now, as optimizers take it.

        Head and adapter have their own rates, and each its share of the clipping norm if the plan says so; what is
        measured has all of it.
        """
        rates = {"head": MEASURING_RATE if self.model.measuring else self.learning_rates.head}
        rates["base"] = self.learning_rates.adapter
        groups: list[dict[str, Any]] = []
        for name, rate in rates.items():
            trained = [p for p in getattr(self.model, name).parameters() if p.requires_grad]
            if trained:
                groups.append({"params": trained, "lr": rate, "initial_lr": rate})
        if len(groups) == len(rates) and self.plan.head_share is not None:
            for group, share in zip(groups, (self.plan.head_share, 1 - self.plan.head_share), strict=True):
                group["share"] = share
        return groups

    def optimizer(self, release: SubsampledGaussian, *, weight: float = 1.0) -> PrivateOptimizer:
        """Return a fresh optimizer over what is trained now, with the noise that a release has this node add."""
        return PrivateOptimizer(
            self.groups(),
            noise_multiplier=release.own_multiplier
            if isinstance(release, SharedGaussian)
            else release.noise_multiplier,
            weight=weight,
            clip_norm=self.plan.clip_norm,
            divisor=self.divisor,
            clipping=self.plan.clipping,
            descent=self.descent,
        )

    def per_example_gradients(self, indices: Sequence[int]) -> None:
        """Leave the gradients of these records, one per record, in `grad_sample` of every trainable parameter.

        Args:
            indices: of one physical batch, as `physical_batches` gives them; it is filled up with copies of the first.
        """
        shape = tuple(self._shapes[indices[0]].tolist())
        filled = [*indices, *[indices[0]] * (self.rows_of(shape) - len(indices))]
        trained = [p for p in self.model.trainable if p.requires_grad]
        for parameter in trained:
            parameter.grad_sample = None  # type: ignore[attr-defined]
        batch = self.activations.batch(filled, step=self.length_step)
        # vectorised, a GPU's softmax has no backward pass in bfloat16
        half = self.precision == "bfloat16" and (self.linear or self._device == "cpu")
        again = self.linear and (self.checkpointing or self.thrift > 0)
        with (
            torch.autocast(self._device, torch.bfloat16, enabled=half),
            checkpointed(self.model) if again else nullcontext(),
        ):
            if self.linear:
                self.batch_size.records = len(filled)
                losses = self.model.losses(batch)
            else:
                vectorised_gradients(self.model, batch)
        if self.linear:
            losses.sum().backward()  # type: ignore[no-untyped-call]
        check_gradients(trained, len(filled))
        for parameter in trained:
            parameter.grad_sample = parameter.grad_sample[: len(indices)]  # type: ignore[attr-defined]

    def rows_of(self, shape: tuple[int, ...]) -> int:
        """Return the rows of every physical batch of one shape: a power of two, from public numbers alone."""
        *lengths, full = shape
        if self.one_by_one or (self._varying and not self.linear):
            return 1  # vectorised records are not padded: few share a length
        tokens = sum(lengths) + self._fixed_tokens
        on_cpu = self._varying and self._device == "cpu"
        at_once = min(self.micro_batch_tokens, CPU_TOKENS) if on_cpu else self.micro_batch_tokens
        most = min(at_once // tokens, GRADIENT_BYTES // (ENTRY_BYTES * self.entries), int(self.divisor) // FILLED_UP)
        if full and lengths[0] < self._longest:
            most //= FULL_IS_RARE
        return 1 << max(0, most.bit_length() - 1)

    @property
    def length_step(self) -> int:
        """A multiple that lengths are rounded up to; vectorised records are never padded."""
        return LENGTH_STEP if self.linear else 1

    def physical_batches(self, chosen: NDArray[np.int64]) -> list[list[int]]:
        """Cut a logical batch into physical ones of one shape each."""
        shapes = [tuple(self._shapes[index].tolist()) for index in chosen.tolist()]
        return grouped(shapes, chosen, {shape: self.rows_of(shape) for shape in set(shapes)})

    def _some_ahead(self, parts: list[list[int]]) -> Iterator[list[int]]:
        """Yield physical batches, with the states of a few records computed together before them."""
        if not self.activations.recomputes:
            yield from parts
            return
        left = list(parts)
        while left:
            taken = [left.pop(0)]
            while left and sum(map(len, taken)) + len(left[0]) < MOST_ROWS:
                taken.append(left.pop(0))
            self.activations.look_ahead([index for part in taken for index in part])
            yield from taken

    def gradients_of(self, part: Sequence[int]) -> None:
        """Leave the gradients of one physical batch in `grad_sample`; records that raise by themselves have zeros."""
        try:
            self.per_example_gradients(part)
            return
        except Exception as error:
            if not may_be_a_records_own(error):
                raise
            log.exception("A physical batch raised; its records are computed one by one.")
        trained = [p for p in self.model.parameters() if p.requires_grad]
        rows = [p.new_zeros(len(part), *p.shape) for p in trained]
        for place, index in enumerate(part):
            try:
                self.per_example_gradients([index])
            except Exception as error:
                if not may_be_a_records_own(error):
                    raise
                log.exception("Record %d of those trained on raised; its gradient counts as zero.", index)
                self.raised.add(index)
                continue
            for gradients, parameter in zip(rows, trained, strict=True):
                gradients[place] = parameter.grad_sample[0]  # type: ignore[attr-defined]
        for gradients, parameter in zip(rows, trained, strict=True):
            parameter.grad_sample = gradients  # type: ignore[attr-defined]

    def per_unit_gradients(self, chosen: NDArray[np.int64]) -> None:
        """Leave the gradients of these units, one per unit in float64, in `grad_sample` of every trainable parameter.

        A unit's gradient is the mean over its records' own; a unit without records has zero. Nothing is clipped yet,
        so physical batches may cut through a unit.

        Args:
            chosen: distinct indices of units of a dataset that has them (units,).
        """
        records, device = self.activations.records, self.activations.device
        if records.units is None:
            raise ExactnessError("Expected records grouped by unit, got single records.")
        rows = rows_of_units(records.units, chosen, unit_count=records.unit_count)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        sums = [torch.zeros(len(chosen), *p.shape, dtype=torch.float64, device=device) for p in trained]
        for part in self._some_ahead(self.physical_batches(np.flatnonzero(rows >= 0))):
            self.gradients_of(part)
            for places in one_of_each(rows[part]):
                into, taken = torch.from_numpy(rows[part][places]).to(device), torch.from_numpy(places).to(device)
                for total, parameter in zip(sums, trained, strict=True):
                    # never a matrix product with zeros and ones: 0 x NaN would carry one unit's NaN to all others
                    total.index_add_(0, into, parameter.grad_sample[taken].double())  # type: ignore[attr-defined]
        counts = torch.from_numpy(np.bincount(rows[rows >= 0], minlength=len(chosen))).to(device).clamp(min=1)
        for total, parameter in zip(sums, trained, strict=True):
            parameter.grad_sample = total.div_(counts.view(-1, *[1] * parameter.dim()))  # type: ignore[attr-defined]

    def gradients(self, chosen: NDArray[np.int64]) -> Iterator[int]:
        """Leave the gradients of a logical batch in `grad_sample`, some units at a time; yields how many each time.

        Args:
            chosen: distinct indices of units, which are single records where the dataset has no others (units,).
        """
        if self.activations.records.units is None:
            for part in self._some_ahead(self.physical_batches(chosen)):
                self.gradients_of(part)
                yield len(part)
        else:
            for units in self._unit_groups(chosen):
                self.per_unit_gradients(units)
                yield len(units)

    def _step(
        self, optimizer: PrivateOptimizer, release: SubsampledGaussian, factor: float, randomness: Randomness
    ) -> None:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        drawn = prefetch_noise(randomness.step(), self.entries, optimizer.noise_scale, self.activations.device)
        chosen = drawn.poisson_batch(self._units, release.sampling_rate)
        self.sum_up(optimizer, chosen)
        optimizer.noisy_step(drawn)

    def sum_up(self, optimizer: PrivateOptimizer, chosen: NDArray[np.int64]) -> None:
        """Clip and add up the gradients of one logical batch.

        Guarantee: where memory runs out the same records are summed again, to the same bits, and get noise once; where
        the probe has not shown the same bits, the round fails.
        """
        before = optimizer.seen, optimizer.scaled_down
        while not self._tried(optimizer, chosen):
            self.thrift += 1
            log.warning("Memory ran out: the step begins again, with layers computed twice.")
            optimizer.zero_grad()
            optimizer.seen, optimizer.scaled_down = before
            if self._device == "cuda":
                torch.cuda.empty_cache()

    def _tried(self, optimizer: PrivateOptimizer, chosen: NDArray[np.int64]) -> bool:
        """Return false if memory ran out and there is a way to need less."""
        try:
            for count in self.gradients(chosen):
                optimizer.accumulate(count)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error) or self.thrift >= self.thrifts:
                raise
            return False
        return True

    def _unit_groups(self, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut a logical batch of units so that no unit is cut and the sums of one group fit into memory."""
        at_once = max(1, UNIT_SUMS_BYTES // (8 * self.entries))
        for start in range(0, len(chosen), at_once):
            yield chosen[start : start + at_once]

    def _check_movement(self, update: NDArray[np.float32], trained: set[str]) -> None:
        """Refuse an update that cannot be right. It looks at what is released, so its answer says nothing else."""
        if not np.isfinite(update).all():
            raise ExactnessError("Expected what is trained to move to finite values, it did not.")
        start = 0
        for name, shape in self.model.layout.tensors:
            size = int(np.prod(shape))
            if name not in trained and update[start : start + size].any():
                raise ExactnessError(f"Expected no tensor to move but those that are trained, got {name}.")
            start += size
