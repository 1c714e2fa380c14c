"""The probe: before the first private step, show that per-example gradients are what clipping takes them for.

A differentially private sum is only private if each record's gradient is its own. Models that flatten time, losses
that average over the batch, norms with batch statistics and adapters without hooks break this silently. So the actual
model, adapter, device, cache and batching are run on four synthetic records of different lengths with a randomised
adapter (at B = 0 half the gradients vanish and prove nothing) and compared with a loop over single records through
PyTorch's own linear layers and the uncut model.
"""

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.vault.datasets import TokenizedDataset, from_records
from client.vault.per_example import plain_linear_layers
from client.vault.prefix import open_prefix
from client.vault.private_training import PrivateTrainer
from shared.adapted_model import AdaptedModel
from shared.errors import ExactnessError

TOLERANCE = 2e-5
"""Largest difference of any gradient entry, relative to the largest entry of its tensor; float32 noise is 3e-6."""
LENGTHS = (5, 17, 9, 30)
LIBRARIES = ("torch", "transformers", "peft", "opacus")
Gradients = dict[str, Tensor]


def probe(trainer: PrivateTrainer, *, cache: Path | None) -> float:
    """Show exactness for this trainer's path, or refuse.

    Guarantee: a model or adapter for which per-example gradients are not exact is refused before any private step.

    Args:
        trainer: as it will train; its weights are restored afterwards.
        cache: folder for a temporary prefix cache, if training will use one.

    Returns:
        The worst relative error found.

    Raises:
        ExactnessError: a gradient is inexact, coupled to another record, missing or zero.
    """
    model, before, real = trainer.model, trainer.model.packed(), trainer.prefix
    try:
        _randomise(model)
        records = synthetic_records(model.vocabulary_size, len(trainer.model.head.bias))
        with _scratch(cache) as scratch:
            found = _batched(trainer, records, scratch)
            worst = _compare(found, _one_by_one(model, records, real.device))
            _check_uncoupled(trainer, found, scratch)
        return worst
    finally:
        trainer.prefix = real
        model.load(before)


def verdict_key(trainer: PrivateTrainer, *, cached: bool) -> str:
    """What a verdict is valid for: model, adapter, our code, the libraries, device, batching and cache."""
    code = hashlib.sha256()
    for path in sorted([*Path(__file__).parent.glob("*.py"), *Path(__file__).parents[2].glob("shared/**/*.py")]):
        code.update(path.read_bytes())
    facts = {
        "model": trainer.model.prefix_id,
        "tensors": trainer.model.layout.tensors,
        "scale": str(trainer.model.peft_model() and trainer.model.peft_model().peft_config),  # type: ignore[union-attr]
        "code": code.hexdigest(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "device": str(trainer.prefix.device),
        "micro_batch_tokens": trainer.micro_batch_tokens,
        "cached": cached,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def ensure_exact(trainer: PrivateTrainer, *, cache: Path | None, verdicts: Path | None) -> None:
    """Probe once per verdict key; a refusal is never remembered, a pass is."""
    known = verdicts / f"{verdict_key(trainer, cached=cache is not None)}.exact" if verdicts else None
    if known is not None and known.exists():
        return
    worst = probe(trainer, cache=cache)
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(f"{worst:.3e}\n")


def synthetic_records(vocabulary_size: int, labels: int, *, variant: int = 0) -> TokenizedDataset:
    """Four records of different lengths from a public generator; `variant` changes the first one's tokens and label."""
    generator = np.random.default_rng(20)
    records = [generator.integers(5, vocabulary_size, length).tolist() for length in LENGTHS]
    targets = np.arange(len(LENGTHS)) % labels
    if variant:
        records[0] = np.random.default_rng(20 + variant).integers(5, vocabulary_size, LENGTHS[0] + 20).tolist()
        targets[0] = (targets[0] + 1) % labels
    return from_records(records, targets)


@contextmanager
def _scratch(cache: Path | None) -> Iterator[Path | None]:
    if cache is None:
        yield None
        return
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        yield Path(folder)


def _randomise(model: AdaptedModel) -> None:
    drawn = np.random.default_rng(21).standard_normal(model.layout.length)
    model.load((0.05 * drawn).astype(np.float32))


def _batched(trainer: PrivateTrainer, records: TokenizedDataset, cache: Path | None) -> Gradients:
    trainer.prefix = open_prefix(
        trainer.model, records, trainer.prefix.device, folder=cache, limit_bytes=2**30 if cache else 0
    )
    named = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.per_example_gradients(range(len(records)))
    gradients: Gradients = {}
    for name, parameter in named.items():
        found = getattr(parameter, "grad_sample", None)
        if found is None or len(found) != len(records):
            raise ExactnessError(f"Expected one gradient per record for {name}, got none.")
        gradients[name] = found
        parameter.grad_sample = None  # type: ignore[attr-defined]
    return gradients


def _one_by_one(model: AdaptedModel, records: TokenizedDataset, device: torch.device) -> Gradients:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: dict[str, list[Tensor]] = {name: [] for name in named}
    with plain_linear_layers(model):
        for index in range(len(records)):
            ids = torch.from_numpy(records.record(index).astype(np.int64)).to(device)[None]
            target = torch.from_numpy(records.targets[index : index + 1]).to(device)
            loss = model.kind.losses(model(ids, torch.ones_like(ids)), target).sum()
            for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
                rows[name].append(gradient)
    return {name: torch.stack(parts) for name, parts in rows.items()}


def _compare(found: Gradients, expected: Gradients) -> float:
    worst = 0.0
    for name, reference in expected.items():
        if not reference.flatten(1).any(dim=1).all():
            raise ExactnessError(f"Expected a gradient that is not zero for every record, {name} has one.")
        error = float((found[name] - reference).abs().max() / reference.abs().max())
        if not error <= TOLERANCE:
            raise ExactnessError(
                f"Expected gradients within {TOLERANCE:g} of a loop over single records, {name} is off by {error:.1e}.",
                hint="This model cannot be trained privately with this adapter; choose another adapter.",
            )
        worst = max(worst, error)
    return worst


def _check_uncoupled(trainer: PrivateTrainer, found: Gradients, cache: Path | None) -> None:
    labels = len(trainer.model.head.bias)
    other = _batched(trainer, synthetic_records(trainer.model.vocabulary_size, labels, variant=1), cache)
    for name, gradient in found.items():
        change = float((gradient[1:] - other[name][1:]).abs().max() / gradient[1:].abs().max())
        if not change <= TOLERANCE:
            raise ExactnessError(
                f"Expected a record's gradient to depend on it alone, {name} moved by {change:.1e} with another record."
            )
