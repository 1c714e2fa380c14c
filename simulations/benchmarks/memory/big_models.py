"""Measure what one GPU holds: peak memory and records per second of a private step, for decoders of random weights.

Each model is written, loaded as a node loads it, and trained in a process of its own. What takes too long is left out.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.study.sections import BaseWeights
from simulations.benchmarks.measure import seconds
from simulations.benchmarks.memory.peak import in_own_process, peak_bytes
from simulations.benchmarks.speed.decoder_steps import Work, step_of, write_decoder

WARM_UP, TURNS, LIMIT_S = 2, 5, 540.0
GIB = 2.0**30


@dataclass(frozen=True)
class Case:
    """A decoder, and how it is held and trained."""

    name: str
    shape: dict[str, Any]
    base_weights: BaseWeights
    checkpointing: bool
    records: int
    tokens: int
    """Of every record."""


@dataclass(frozen=True)
class Measured:
    """What a case took."""

    model: str
    held_in: str
    computed_again: str
    """Whether layers are computed again in the backward pass."""
    micro_batch: str
    peak_gib: float
    """Of the GPU; of the process, where the device is a CPU."""
    records_per_s: float


def _llama(hidden: int, inner: int, layers: int, heads: int, groups: int, words: int, *, tied: bool) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = dict(zip(names, (hidden, inner, layers, heads, groups), strict=True))
    return {**sizes, "vocab_size": words, "tie_word_embeddings": tied}


SIZES = {
    "135M": _llama(576, 1536, 30, 9, 3, 49_152, tied=True),
    "0.5B": _llama(896, 4864, 24, 14, 2, 151_936, tied=True),
    "1.2B": _llama(2048, 8192, 16, 32, 8, 128_256, tied=True),
    "8B": _llama(4096, 14_336, 32, 32, 8, 128_256, tied=False),
}
CASES = (
    Case("135M", SIZES["135M"], "float32", False, 16, 256),
    Case("135M", SIZES["135M"], "bfloat16", False, 16, 256),
    Case("0.5B", SIZES["0.5B"], "bfloat16", False, 16, 256),
    Case("1.2B", SIZES["1.2B"], "bfloat16", False, 16, 256),
    Case("1.2B", SIZES["1.2B"], "4bit", False, 16, 256),
    Case("8B", SIZES["8B"], "4bit", False, 8, 256),
    Case("8B", SIZES["8B"], "4bit", True, 8, 256),
)


def rows(
    cases: Sequence[Case] = CASES, *, device: str, turns: int = TURNS, limit_s: float = LIMIT_S
) -> Iterator[Measured | str]:
    """Measure one case after another; yields a sentence for what there was no time for.

    Args:
        cases: those of one model stand together.
        device: as torch names it.
        turns: timed steps.
        limit_s: after so many seconds no further case begins.
    """
    started, written = time.monotonic(), ""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        for case in cases:
            if time.monotonic() - started > limit_s:
                yield f"{case.name} in {case.base_weights}: not measured, {limit_s:.0f} seconds were over"
                continue
            if written != case.name:
                in_own_process(write_decoder, folder, case.shape, device)
                written = case.name
            (peak, pace), _ = in_own_process(measure, case, folder, device, turns)
            again = "yes" if case.checkpointing else "no"
            batch = f"{case.records} x {case.tokens}"
            yield Measured(case.name, case.base_weights, again, batch, peak / GIB, pace)


def measure(case: Case, folder: Path, device: str, turns: int) -> tuple[float, float]:
    """Return the most memory that private steps took, in bytes, and records per second; in a fresh process."""
    import torch

    work = Work(
        folder,
        case.records,
        case.tokens,
        device,
        base_weights=case.base_weights,
        checkpointing=case.checkpointing,
    )
    step = step_of("private", work)
    for _ in range(WARM_UP):
        step.run()
    taken = sorted(seconds(step.run) for _ in range(turns))[turns // 2]
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else peak_bytes()
    return float(peak), case.records / taken
