"""The probe: before the first private step, show that per-example gradients are what clipping takes them for.

A differentially private sum is only private if each record's gradient is its own. Models that flatten time, losses
that average over the batch, norms with batch statistics and adapters without hooks break this silently. So the actual
model, adapter, device, cache and batching are run on a few synthetic records of different lengths with a randomised
adapter (at B = 0 half the gradients vanish and prove nothing) and compared with a loop over single records through
PyTorch's own linear layers and the uncut model, without padding.

Then one record is taken away, and no other record's gradient may change by a single bit, at any place, at lengths up to
the longest that the study allows. Where one does, physical batches hold one record each.
"""

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.vault.training.linear_gradients import plain_linear_layers
from client.vault.training.micro_batches import longest_declared
from client.vault.training.trainer import PrivateTrainer
from shared.adapted_model.frozen_activations import FrozenActivations, open_activations
from shared.adapted_model.model import AdaptedModel, at_least_float32
from shared.base_models.four_bits import plain_gradients
from shared.errors import ExactnessError, lacks_memory
from shared.files import write_private
from shared.protocol.messages import Vector
from shared.records.batches import LENGTH_STEP, Batch, collate, padded_length
from shared.records.ragged import Records, with_units

TOLERANCE = 2e-5
"""Largest difference of any gradient entry, relative to the largest entry of its tensor; float32 noise is 3e-6."""
HALF_TOLERANCE = 0.1
"""The same with products in bfloat16, which have three digits; their loop, and coupling, keep the strict figure."""
LENGTHS = (5, 17, 7, 20, 5, 17)
"""Some of one length and some that are padded to another's, so that physical batches hold several."""
ANOTHER_MODEL = "This model cannot be trained privately with this adapter; choose another of the two."
VMAP = "Choose an adapter of linear layers, such as adapter.method = 'ffa-lora' or 'lora'."
SPREAD, HALVINGS = 0.05, 60
PACKAGES = ("client.vault", "shared")
"""Ours: what computes gradients, and all that it may call."""
KERNEL_MODES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
LIBRARIES = ("torch", "transformers", "peft", "opacus")
Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Verdict:
    """The outcome of a probe that refused nothing."""

    worst: float
    """The largest relative error of a gradient."""
    one_by_one: bool
    """True if a record's bits depended on its company, so that every physical batch has to hold one record."""


def probe(trainer: PrivateTrainer, *, cache: Path | None, hostile: Vector | None = None) -> Verdict:
    """Show exactness for this trainer's path, or refuse.

    Guarantee: a model or adapter for which per-example gradients are not exact is refused before any private step.
    Guarantee: a path on which one record's presence changes a bit of another's gradient trains records one by one.

    Args:
        trainer: as it will train; its weights are restored afterwards.
        cache: folder for a temporary activation cache, if training will use one.
        hostile: an adapter that makes rounding errors as large as a task may, beside a random one.

    Raises:
        ExactnessError: a gradient is inexact, coupled to another record, missing or zero.
    """
    model, before, real = trainer.model, trainer.model.packed(), trainer.activations
    rounds = (True, False) if model.head_strategy.measures else (False,)
    try:
        randomise(model)
        worst = max(_probe(trainer, cache, measures=measures) for measures in rounds)
        random = model.packed()
        one_by_one = False
        for adapter in (random,) if hostile is None else (random, finite(trainer, hostile)):
            model.load(adapter)
            one_by_one |= any(_depends_on_company(trainer, cache, measures=measures) for measures in rounds)
        return Verdict(worst, one_by_one)
    except ExactnessError as inexact:
        reason = str(inexact).removesuffix(".")
        raise ExactnessError(
            f"{reason}; the base model is a {model.config.model_type!r}.", hint=inexact.hint or ANOTHER_MODEL
        ) from inexact
    except RuntimeError as error:
        if trainer.linear or lacks_memory(error):
            raise
        raise ExactnessError(f"Expected losses that can be vectorised over records: {error}", hint=VMAP) from error
    finally:
        trainer.train_on(real)
        model.load(before)


def _probe(trainer: PrivateTrainer, cache: Path | None, *, measures: bool) -> float:
    model, device = trainer.model, trainer.activations.device
    records = model.kind.synthetic(model.config, LENGTHS, variant=0)
    with trainer.measuring(measures), scratch(cache) as folder:
        gradients = _batched(trainer, records, folder)
        short = trainer.precision != "float32" or model.base_weights != "float32"
        tolerance = HALF_TOLERANCE if short else TOLERANCE
        try:
            worst = _compare(gradients, _one_by_one(model, records, device), tolerance)
        except ExactnessError as inexact:
            # alone, a record's sums over a large vocabulary round more than in a batch: the loop may be what is off
            worst = _compare(gradients, _one_by_one_in_double(model, records, device, inexact), tolerance)
        _check_uncoupled(trainer, gradients, folder)
    return worst


def verdict_key(trainer: PrivateTrainer, *, cached: bool, hostile: Vector | None = None) -> str:
    """Return what a verdict is valid for: model, adapter, our code, libraries, machine, batching and cache."""
    device = trainer.activations.device
    facts = {
        "model": trainer.model.frozen_id,
        "task": repr(getattr(trainer.model.kind, "task", type(trainer.model.kind).__name__)),
        "tensors": trainer.model.layout.tensors,
        "scale": str(trainer.model.peft_model() and trainer.model.peft_model().peft_config),  # type: ignore[union-attr]
        **_installed(),
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "blas": torch.__config__.show(),
        "modes": {name: os.environ.get(name) for name in KERNEL_MODES},
        "storage": trainer.activations.storage,
        "micro_batch_tokens": trainer.micro_batch_tokens,
        "divisor": trainer.divisor,
        "units": trainer.activations.records.units is not None,
        "precision": trainer.precision,
        "checkpointing": trainer.checkpointing,
        "cached": cached,
        "hostile": None if hostile is None else hashlib.sha256(hostile.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


@lru_cache(maxsize=1)
def _installed() -> dict[str, object]:
    """Our code and the libraries, read once: a process with many simulated sites asks for each of them."""
    code = code_digest(importlib.resources.files(package) for package in PACKAGES)
    return {"code": code, "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES}}


def code_digest(packages: Iterable[Traversable]) -> str:
    """Hash every Python file of the packages, and where it stands in them.

    Raises:
        ExactnessError: a package has no Python file, so nothing would be hashed.
    """
    digest = hashlib.sha256()
    for package in packages:
        files = sorted(_python_files(package, ""), key=lambda file: file[0])
        if not files:
            raise ExactnessError(f"Expected Python files in package {package.name}, got none.")
        for address, file in files:
            code = file.read_bytes()
            digest.update(f"{package.name}/{address} {len(code)}\n".encode() + code)
    return digest.hexdigest()


def _python_files(folder: Traversable, address: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _python_files(entry, f"{address}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{address}{entry.name}", entry


def ensure_exact(
    trainer: PrivateTrainer, *, cache: Path | None, verdicts: Path | None, hostile: Vector | None = None
) -> Verdict:
    """Probe once per verdict key; a refusal is never remembered, a pass is."""
    known = verdicts / f"{verdict_key(trainer, cached=cache is not None, hostile=hostile)}.exact" if verdicts else None
    if known is not None and known.exists():
        return Verdict(**json.loads(known.read_text()))
    verdict = probe(trainer, cache=cache, hostile=hostile)
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_private(known, json.dumps(asdict(verdict)).encode())
    return verdict


@contextmanager
def scratch(cache: Path | None) -> Iterator[Path | None]:
    if cache is None:
        yield None
        return
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        yield Path(folder)


def randomise(model: AdaptedModel) -> None:
    drawn = np.random.default_rng(21).standard_normal(model.layout.length)
    model.load(model.packed() + (SPREAD * drawn).astype(np.float32))
    model.head_strategy.imagine()


def _batched(trainer: PrivateTrainer, records: Records, cache: Path | None) -> Gradients:
    """Gradients of all records as training computes them, in the records' order."""
    device, limit_bytes = trainer.activations.device, 2**30 if cache else 0
    trainer.train_on(open_activations(trainer.model, records, device, folder=cache, limit_bytes=limit_bytes))
    named = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    gradients: Gradients = {name: p.new_zeros(len(records), *p.shape) for name, p in named.items()}
    for part in trainer.physical_batches(np.arange(len(records))):
        trainer.per_example_gradients(part)
        for name, parameter in named.items():
            gradients[name][part] = parameter.grad_sample  # type: ignore[attr-defined]
            parameter.grad_sample = None  # type: ignore[attr-defined]
    return gradients


def _one_by_one(model: AdaptedModel, records: Records, device: torch.device) -> Gradients:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: dict[str, list[Tensor]] = {name: [] for name in named}
    with plain_linear_layers(model), plain_gradients(model):
        for index in range(len(records)):
            batch = collate(records, [index], model.kind.fills, device, step=1)
            loss = _loss(model, batch)
            computed = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for (name, parameter), gradient in zip(named.items(), computed, strict=True):
                rows[name].append(torch.zeros_like(parameter) if gradient is None else gradient)
    return {name: torch.stack(parts) for name, parts in rows.items()}


def _one_by_one_in_double(
    model: AdaptedModel, records: Records, device: torch.device, inexact: ExactnessError
) -> Gradients:
    """Run the loop in double precision, whose own rounding is far below what is allowed.

    Raises:
        ExactnessError: `inexact`, because the model computes in single precision alone.
    """
    single = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    try:
        for tensor, values in single:
            tensor.data = values.double()
        return _one_by_one(model, records, device)
    except (RuntimeError, TypeError):
        raise inexact from None
    finally:
        for tensor, values in single:
            tensor.data = values


def _loss(model: AdaptedModel, batch: Batch) -> Tensor:
    """The loss of one record, or of one that is measured, written once more: an oracle runs no line that it judges."""
    if not model.measuring:
        return model.kind.losses(model(batch), batch).sum()
    states = at_least_float32(model.kind.run(model.base, model.read(batch)))
    (features,) = model.kind.features(states, batch).detach()
    moments = model.head.get_parameter("moments.weight")
    loss: Tensor = -(features @ moments @ features)
    return loss


def _compare(gradients: Gradients, expected: Gradients, tolerance: float) -> float:
    worst = 0.0
    for name, reference in expected.items():
        if not reference.any():
            raise ExactnessError(f"Expected a gradient that is not zero for some record, {name} has none.")
        error = float((gradients[name] - reference).abs().max() / reference.abs().max())
        if not error <= tolerance:
            raise ExactnessError(
                f"Expected gradients within {tolerance:g} of a loop over single records, {name} is off by {error:.1e}.",
                hint=ANOTHER_MODEL,
            )
        worst = max(worst, error)
    moving = torch.stack([reference.flatten(1).any(dim=1) for reference in expected.values()]).any(dim=0)
    if not moving.all():
        raise ExactnessError("Expected every record to have a gradient that is not zero, got one without.")
    return worst


def _check_uncoupled(trainer: PrivateTrainer, gradients: Gradients, cache: Path | None) -> None:
    model = trainer.model
    other = _batched(trainer, model.kind.synthetic(model.config, LENGTHS, variant=1), cache)
    for name, gradient in gradients.items():
        largest = max(float(gradient[1:].abs().max()), torch.finfo(gradient.dtype).tiny)
        change = float((gradient[1:] - other[name][1:]).abs().max()) / largest
        if not change <= TOLERANCE:
            raise ExactnessError(
                f"Expected a record's gradient to depend on it alone, {name} moved by {change:.1e} with another record."
            )


def _depends_on_company(trainer: PrivateTrainer, cache: Path | None, *, measures: bool) -> bool:
    """Return true if a record's gradient changes by a bit when it stands alone, or without its first neighbour.

    Raises:
        ExactnessError: a synthetic record raised, or frozen layers are not each record's own.
    """
    model = trainer.model
    with trainer.measuring(measures):
        records = model.kind.synthetic(model.config, lengths_of_batches(trainer), variant=0)
        if model.has_frozen_layers:
            _check_frozen_bits(model, records, trainer.activations.device)
        if trainer.activations.records.units is not None:
            records = with_units(records, np.arange(len(records)))
        with scratch(cache) as folder:
            trainer.train_on(opened(trainer, records, folder))
            everybody = np.arange(len(records))
            together, fewer = gradients_of(trainer, everybody), gradients_of(trainer, everybody[1:])
            some = {0, len(records) - 1, *_first_of_each(trainer.activations.canonical_shapes(trainer.length_step))}
            return any(
                not same_bits(together[index], fewer.get(index, together[index]))
                or (index in some and not same_bits(together[index], gradients_of(trainer, everybody[[index]])[index]))
                for index in everybody.tolist()
            )


def opened(trainer: PrivateTrainer, records: Records, folder: Path | None) -> FrozenActivations:
    device, limit_bytes = trainer.activations.device, 2**30 if folder else 0
    storage = trainer.activations.storage
    return open_activations(trainer.model, records, device, folder=folder, limit_bytes=limit_bytes, storage=storage)


def _check_frozen_bits(model: AdaptedModel, records: Records, device: torch.device) -> None:
    """Refuse frozen layers in which a record's place or company changes a bit of its activations."""
    computed = FrozenActivations(model, records, device)
    everybody = list(range(len(records)))
    together, fewer = computed.states(everybody), [computed.states([0])[0], *computed.states(everybody[1:])]
    if not same_bits(together, fewer) or not same_bits(together[-1:], computed.states(everybody[-1:])):
        raise ExactnessError(
            "Expected frozen layers whose activations are each record's own, they depend on others' by some bits.",
            hint="Models that send tokens to experts do this. Train all layers, or choose another base model.",
        )


def gradients_of(trainer: PrivateTrainer, chosen: NDArray[np.int64]) -> dict[int, list[Tensor]]:
    """Return the gradients of units by their index, as a logical batch of them has them."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    rows: dict[int, list[Tensor]] = {}
    parts = [chosen.tolist()] if trainer.activations.records.units is not None else trainer.physical_batches(chosen)
    trainer.raised = set()
    for part, count in zip(parts, trainer.gradients(chosen), strict=True):
        if trainer.raised or count != len(part):
            raise ExactnessError("Expected synthetic records that this model can be trained on, one raised.")
        for place, index in enumerate(part):
            rows[index] = [p.grad_sample[place].clone() for p in trained]  # type: ignore[attr-defined]
    for parameter in trained:
        parameter.grad_sample = None  # type: ignore[attr-defined]
    return rows


def same_bits(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Return true if tensors agree to the last bit."""
    return all(
        a.shape == b.shape and bool((a == b).logical_or_(a.isnan() & b.isnan()).all())
        for a, b in zip(ours, theirs, strict=True)
    )


def _first_of_each(shapes: NDArray[np.int64]) -> list[int]:
    first: dict[tuple[int, ...], int] = {}
    for index, shape in enumerate(map(tuple, shapes.tolist())):
        first.setdefault(shape, index)
    return list(first.values())


def lengths_of_batches(trainer: PrivateTrainer) -> list[int]:
    """Return lengths of synthetic records: of some shapes up to the longest, one more than a physical batch holds.

    Each shape comes with padding and without.
    """
    if not trainer.activations.varying:
        (shape,) = {tuple(row) for row in trainer.activations.canonical_shapes(trainer.length_step).tolist()}
        return [1] * (trainer.rows_of(shape) + 1)
    longest = max(longest_declared(trainer.model.kind), max(LENGTHS))
    padded = sorted({LENGTH_STEP * 2**k for k in range(10) if LENGTH_STEP * 2**k < longest} | {longest})
    counts = {length: trainer.rows_of((padded_length(length, trainer.length_step), 0)) + 1 for length in padded}
    return [near for length, count in counts.items() for near in [*[length - 3] * count, length, length]]


def finite(trainer: PrivateTrainer, adapter: Vector) -> Vector:
    """Halve an adapter until gradients are finite and not all zero: NaN agrees with NaN and shows nothing."""
    for _ in range(HALVINGS):
        trainer.model.load(adapter)
        gradients = gradients_of(trainer, np.arange(1))[0]
        if all(bool(part.isfinite().all()) for part in gradients) and any(bool(part.any()) for part in gradients):
            return adapter
        adapter = adapter / np.float32(2)
    raise ExactnessError("Expected finite gradients at some adapter within a task's bound, got none.")
