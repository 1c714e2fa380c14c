"""Measure private steps of decoders, of base size and of a billion random weights; on a GPU if there is one.

Beside a plain PEFT step and beside Opacus' own engine: records per second, and peak memory of each in a process of its
own, of the GPU if there is one. A GPU does both kinds of matrix products: of single precision, and of half.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.vault.training.round_trainer import device_for
from simulations.benchmarks.measure import Pairs, Ratio, alternating, ratio_of, seconds
from simulations.benchmarks.memory.peak import MIB, in_own_process
from simulations.benchmarks.speed.decoder_steps import WARM_UP, Precision, Way, Work, peak_of, step_of, write_decoder
from simulations.benchmarks.stock.peft_model import refuse_other_tensors

TURNS = 5
PRECISIONS: dict[str, tuple[Precision, ...]] = {"cpu": ("float32",), "cuda": ("float32", "bfloat16")}
PEERS: dict[Way, str] = {"plain": "plain PEFT step", "opacus": "Opacus' engine"}


@dataclass(frozen=True)
class Size:
    """A decoder, and the micro-batch (records, tokens) that it is given."""

    name: str
    shape: dict[str, Any]
    on_cpu: tuple[int, int]
    on_gpu: tuple[int, int]


BASE = Size(
    "decoder of 134 million weights",
    {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    on_cpu=(8, 64),
    on_gpu=(32, 256),
)
BILLION = Size(
    "decoder of 1.2 billion weights",
    {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    on_cpu=(4, 64),
    on_gpu=(16, 256),
)


def rows() -> Iterator[Ratio]:
    """Measure both sizes beside both peers."""
    device = device_for("auto").type
    for size in (BASE, BILLION):
        with tempfile.TemporaryDirectory() as folder:
            write_decoder(Path(folder), size.shape)
            records, tokens = size.on_gpu if device == "cuda" else size.on_cpu
            for precision in PRECISIONS[device]:
                name = f"{size.name}, {device}, {precision}"
                yield from compared(name, Work(Path(folder), records, tokens, device, precision), turns=TURNS)


def compared(name: str, work: Work, *, turns: int) -> Iterator[Ratio]:
    """Measure one decoder; two models at a time are in memory.

    Raises:
        RuntimeError: the ways do not train the same tensors.
    """
    for way, peer in PEERS.items():
        yield ratio_of(f"private step, {name}", peer, _speeds(way, work, turns), unit="records/s")
    private = _peak("private", work)
    for way, peer in PEERS.items():
        yield ratio_of(f"peak memory, {name}", peer, [(private, _peak(way, work))], unit="MiB")


def _speeds(way: Way, work: Work, turns: int) -> Pairs:
    ours, theirs = step_of("private", work), step_of(way, work)
    refuse_other_tensors(ours.trains, theirs.trains)
    for _ in range(WARM_UP):
        ours.run()
        theirs.run()
    pairs = alternating(lambda: seconds(ours.run), lambda: seconds(theirs.run), turns)
    return [(work.records / mine, work.records / peers) for mine, peers in pairs]


def _peak(way: Way, work: Work) -> float:
    return in_own_process(peak_of, way, work)[0] / MIB
