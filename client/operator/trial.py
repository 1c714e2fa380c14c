"""Trying a study on a dataset: policy and budget, labels, and a few real steps whose result is thrown away."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from client.operator.finding import NO_ROOM, OUT_OF_MEMORY, Seen
from client.vault.records.snapshot import Facts
from client.vault.review.node_files import NodeFiles
from client.vault.review.review import ReviewedStudy
from client.vault.review.summary import StudySummary
from shared.errors import BudgetError, DataError, ExactnessError, PolicyRefusal, RunError
from shared.study.declaration import Study
from shared.study.sections import Performance

TIMED_STEPS = 3
MOST_UNUSABLE, LEAST_FREE_MEMORY = 0.1, 0.05
"""Fractions beyond which a check fails: of the records, of a memory."""


def decision(summary: StudySummary) -> str:
    """Say what the study would cost.

    Raises:
        PolicyRefusal: the policy forbids it.
        BudgetError: it does not fit.
    """
    if summary.objections:
        raise PolicyRefusal(
            f"The policy refuses: {'; '.join(summary.objections)}.", hint="Change node.toml, or say no."
        )
    cost = f"epsilon {summary.epsilon_after:.3f} of {summary.epsilon_limit:g}"
    if not summary.fits:
        raise BudgetError(
            f"With it, {cost} would be spent or earmarked.", hint="Say no, or ask for a study that costs less."
        )
    return f"with it, {cost} would be spent or earmarked"


def labels(facts: Facts) -> Seen:
    """Count the records that the study can use; with what the reader noted.

    Raises:
        DataError: too few.
    """
    usable = facts.train - facts.unusable
    listed = ", ".join(f"{label} {count}" for label, count in facts.labels.items())
    saw = f"{usable} of {facts.train} training records can be used ({listed}). For your eyes only"
    if facts.unusable > MOST_UNUSABLE * facts.train or not usable:
        raise DataError(
            f"{saw}.", hint="The others have no text, or a label that the study has not: spelling and case count."
        )
    return Seen(saw, notes=tuple(facts.problems))


def room(node: NodeFiles, reviewed: ReviewedStudy) -> str:
    """Compare what a study is estimated to need with the memory that there is, before anything is loaded.

    Raises:
        RunError: there is less.
    """
    from client.vault.training.micro_batches import estimated
    from client.vault.training.round_trainer import device_for
    from client.vault.training.trainer import CPU_TOKENS

    performance = node.settings.performance
    study, device = _by_itself(reviewed.study, performance), device_for(performance.device).type
    tokens = performance.micro_batch_tokens if device == "cuda" else min(CPU_TOKENS, performance.micro_batch_tokens)
    need, memory = estimated(study, node.base_files(study), tokens=tokens), memory_of(device)
    batch = f" and {tokens} tokens at once {need.batch / 2**30:.1f}" if need.batch is not None else ""
    saw = (
        f"the weights need about {need.weights / 2**30:.1f} GiB{batch}; "
        f"there are {memory.total_bytes / 2**30:.1f} GiB of {memory.of}"
    )
    if need.weights + (need.batch or 0) > memory.total_bytes:
        raise RunError(f"{saw}.", hint=NO_ROOM)
    return saw


def trial(node: NodeFiles, reviewed: ReviewedStudy) -> str:
    """Probe the model, then train a few steps; says how long a step takes. Nothing of it leaves.

    Raises:
        ExactnessError: gradients are not each record's own.
        RunError: memory was nearly full.
    """
    from client.vault.training.randomness import OsRandomness
    from client.vault.training.round_trainer import RoundTrainer, device_for
    from shared.adapted_model.model import build

    study, performance = reviewed.study, node.settings.performance
    local = _by_itself(study, performance.model_copy(update={"activation_cache": False}))
    model = build(local, node.base_files(study)).to(device_for(performance.device))
    trainer = RoundTrainer(
        local,
        model,
        reviewed.snapshot.train,
        declared_size=reviewed.dataset.terms.declared_size,
        randomness=lambda _round: OsRandomness(),
    ).trainer()
    start = model.packed()
    if not trainer.train_round(start, factors=[1.0], randomness=OsRandomness()).any():
        raise ExactnessError("Expected noise to move what is trained, nothing moved.")
    started = time.monotonic()
    trainer.train_round(start, factors=[1.0] * TIMED_STEPS, randomness=OsRandomness())
    seconds = (time.monotonic() - started) / TIMED_STEPS
    minutes = seconds * study.training.local_steps / 60
    device = next(model.parameters()).device
    pace = f"exact; {seconds:.2f} s a step on {device.type}, {minutes:.1f} minutes a round at most"
    return f"{pace}, {fit(memory_of(device.type))}"


def _by_itself(study: Study, performance: Performance) -> Study:
    """Return a study as this node can try it: with all of the noise, as there is nobody to share it with."""
    federation = study.federation.model_copy(update={"secure_sum": None, "threshold": None, "colluders": None})
    return study.model_copy(update={"performance": performance, "federation": federation})


@dataclass(frozen=True)
class Memory:
    """Memory that a trial took, and that is left beside it."""

    of: str
    peak_bytes: int
    free_bytes: int
    total_bytes: int


def memory_of(device: str) -> Memory:
    """Read the memory that training on a device needs most: a GPU's own, or this machine's."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        # what a trial reserved is given back when it ends, and is there for the next
        reserved = torch.cuda.memory_reserved()
        return Memory("GPU memory", torch.cuda.max_memory_reserved(), free + reserved, total)
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = (os.sysconf(name) * page for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    return Memory("memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10, _available(free), total)


def fit(memory: Memory) -> str:
    """Say how much memory a trial left.

    Raises:
        RunError: hardly any.
    """
    saw = (
        f"{memory.peak_bytes / 2**30:.1f} GiB of {memory.of}, "
        f"{memory.free_bytes / 2**30:.1f} of {memory.total_bytes / 2**30:.1f} GiB free"
    )
    if memory.free_bytes < LEAST_FREE_MEMORY * memory.total_bytes:
        raise RunError(f"It fitted this once: {saw}.", hint=OUT_OF_MEMORY)
    return saw


def _available(free: int) -> int:
    """Free memory with what the system would give up for it, where it says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return free
