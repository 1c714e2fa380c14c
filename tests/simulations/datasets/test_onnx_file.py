"""Tensors and nodes of ONNX files, against a file that the package onnx 1.23 wrote."""

import base64

import pytest

from shared.errors import DataError
from simulations.datasets.models.onnx_file import Node, read_graph

FILE = base64.b64decode(
    "CA4SAXQ68QEKKgoBeAoDcmF3EgF5GhUvbGF5ZXIuMC9xdWVyeS9NYXRNdWwiBk1hdE11bBIBZyolCAIIAxABQgNyYXdKGAAAAAAAAIA/AAAAQA"
    "AAQEAAAIBAAACgQCoWCAIQASIIAAAAPwAAAMBCBmZsb2F0cyoaEAMqCv3//////////wFCCnplcm9fcG9pbnQqEAgCEAIqA8gBB0IFYnl0ZXMq"
    "HAgCEAdCBGxvbmdKEP//////////LAEAAAAAAAAqCwgAEAFCBWVtcHR5WhMKAXgSDgoMCAESCAoCCAEKAggCYhMKAXkSDgoMCAESCAoCCAEKAg"
    "gDQgIQHA=="
)


def test_a_file_of_the_package_onnx_is_read() -> None:
    graph = read_graph(FILE)
    assert graph.nodes == [Node("/layer.0/query/MatMul", "MatMul", ("x", "raw"))]
    assert {name: (value.dtype.name, value.tolist()) for name, value in graph.tensors.items()} == {
        "raw": ("float32", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
        "floats": ("float32", [0.5, -2.0]),
        "zero_point": ("int8", -3),
        "bytes": ("uint8", [200, 7]),
        "long": ("int64", [-1, 300]),
        "empty": ("float32", []),
    }


@pytest.mark.parametrize("content", [b"", b"PK", FILE[:-9], FILE[:100], b"\xff" * 20], ids=range(5))
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="Expected an ONNX file"):
        read_graph(content)


def test_every_cut_and_every_flipped_byte_is_read_or_refused() -> None:
    for at in range(len(FILE)):
        for content in (FILE[:at], FILE[:at] + bytes([FILE[at] ^ 0xFF]) + FILE[at + 1 :]):
            try:
                assert isinstance(read_graph(content).tensors, dict)
            except DataError:
                continue
