"""Read tensors and nodes of an ONNX file without the package onnx: conversions need its weights and nothing else.

An ONNX file is a protocol buffer; numbers of fields and types are those of onnx.proto, version 1.17.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

GRAPH, NODE, INITIALIZER, NODE_INPUT, NODE_NAME, NODE_OPERATOR = 7, 1, 5, 1, 3, 4
DIMENSIONS, DATA_TYPE, FLOATS, INTEGERS, TENSOR_NAME, RAW_DATA = 1, 2, 4, 5, 8, 9
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}
"""NumPy's names for the types of elements that our sources hold."""
Value = int | memoryview
Tensor = NDArray[np.number]


class Node(NamedTuple):
    """One operation: exported graphs name it by the path of the module that it came from."""

    name: str
    operator: str
    inputs: tuple[str, ...]


class Graph(NamedTuple):
    """The weights of a model and the operations that read them."""

    tensors: dict[str, Tensor]
    nodes: list[Node]


def read_graph(content: bytes) -> Graph:
    """Read the graph of an ONNX file whose tensors lie inside the file.

    Raises:
        DataError: the bytes are no such file, or a tensor has another type than those that are read here.
    """
    tensors, nodes = dict[str, Tensor](), list[Node]()
    try:
        for number, part in _fields(_last(memoryview(content), GRAPH)):
            if number == INITIALIZER:
                name, tensor = _tensor(_bytes(part))
                tensors[name] = tensor
            elif number == NODE:
                nodes.append(_node(_bytes(part)))
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise DataError(f"Expected an ONNX file with its weights, got other bytes ({error}).") from None
    return Graph(tensors, nodes)


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    """Return name and values, which stand as bytes, as floats or as integers."""
    dimensions, integers, name, content, kind = list[int](), list[int](), "", b"", 0
    for number, value in _fields(message):
        if number == DIMENSIONS:
            dimensions += _integers(value)
        elif number == INTEGERS:
            integers += _integers(value)
        elif number == DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == TENSOR_NAME:
            name = str(_bytes(value), "utf-8")
        elif number in (FLOATS, RAW_DATA):
            content += _bytes(value)
    values = np.array(integers, np.uint64).astype(DTYPES[kind]) if integers else np.frombuffer(content, DTYPES[kind])
    return name, values.reshape(dimensions)


def _node(message: memoryview) -> Node:
    fields = [(number, value) for number, value in _fields(message) if isinstance(value, memoryview)]
    name, operator = (
        next((str(value, "utf-8") for number, value in fields if number == wanted), "")
        for wanted in (NODE_NAME, NODE_OPERATOR)
    )
    return Node(name, operator, tuple(str(value, "utf-8") for number, value in fields if number == NODE_INPUT))


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field of a message, in the order of the file."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = {FIXED64: (8, at), FIXED32: (4, at)}.get(wire) or _varint(message, at)
        if wire not in (FIXED64, BYTES, FIXED32) or at + size > len(message):
            raise ValueError("a field ends outside its message")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _integers(value: Value) -> list[int]:
    """Return one number, or all of a packed field."""
    if isinstance(value, int):
        return [value]
    numbers, at = list[int](), 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _last(message: memoryview, wanted: int) -> memoryview:
    return [_bytes(value) for number, value in _fields(message) if number == wanted][-1]


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes should")
    return value
