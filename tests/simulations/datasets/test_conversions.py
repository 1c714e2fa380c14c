"""Each conversion on a miniature of its source; nothing is fetched."""

import struct

import numpy as np
import pytest
import torch

from shared.errors import DataError
from simulations.datasets.models import dinov2_small, flan_t5_small, multilingual_e5_small, reactions_albert
from simulations.datasets.models.onnx_file import Graph, Node

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def vision(*, positions: int) -> Graph:
    tensors = {
        "backbone.embeddings.cls_token": np.ones((1, 1, 384), np.float32),
        "backbone.encoder.layer.0.norm1.weight": np.ones(384, np.float32),
        "onnx::Concat_1": np.full((1, 1, 384), 2, np.float32),
        "onnx::Reshape_2": np.full((1, positions, 384), 3, np.float32),
        "onnx::MatMul_3": MATRIX,
        "onnx::MatMul_4": MATRIX,
        "decoder.weight": MATRIX,
    }
    nodes = [
        Node("/backbone/encoder/layer.0/attention/attention/query/MatMul", "MatMul", ("x", "onnx::MatMul_3")),
        Node("/backbone/encoder/layer.0/attention/attention/MatMul", "MatMul", ("x", "y")),
        Node("/decoder/MatMul", "MatMul", ("x", "onnx::MatMul_4")),
    ]
    return Graph(tensors, nodes)


def test_dinov2s_linear_layers_are_named_by_their_operations_and_positions_are_joined() -> None:
    weights = dinov2_small.backbone(vision(positions=37 * 37))
    assert sorted(weights) == [
        "embeddings.cls_token",
        "embeddings.mask_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.norm1.weight",
    ]
    assert np.array_equal(weights["encoder.layer.0.attention.attention.query.weight"], MATRIX.T)
    assert weights["embeddings.position_embeddings"][0, :, 0].unique_consecutive(return_counts=True)[1].tolist() == [
        1,
        1369,
    ]
    with pytest.raises(DataError, match=r"one unnamed tensor of shape \(1, 1369, 384\), got 0"):
        dinov2_small.backbone(vision(positions=256))


def text_to_text(*, shift: int = 0) -> dict[str, Graph]:
    rounded = {"_quantized": np.array([[128, 130]], np.uint8), "_scale": np.float32(0.5), "_zero_point": np.uint8(128)}
    signed = {"_quantized": np.array([[-4, 6]], np.int8), "_scale": np.float32(0.5), "_zero_point": np.int8(0)}
    graphs = {}
    for part, root, name in (
        ("encoder", "enc", "enc.embed_tokens.weight"),
        ("decoder", "m/decoder", "m.shared.weight"),
    ):
        tensors = {name + end: np.asarray(value) for end, value in rounded.items()}
        tensors |= {f"onnx::MatMul_1{end}": np.asarray(value) for end, value in signed.items()}
        tensors[f"{root.replace('/', '.')}.final_layer_norm.weight"] = np.ones(2, np.float32)
        node = Node(
            f"/{root}/block.0/layer.0/SelfAttention/q/MatMul_quant", "MatMulInteger", ("x", "onnx::MatMul_1_quantized")
        )
        graphs[part] = Graph(tensors, [node])
    head = Node("/lm_head/MatMul_quant", "MatMulInteger", ("x", "onnx::MatMul_1_quantized"))
    graphs["decoder"].nodes.append(head)
    graphs["decoder"].tensors["m.shared.weight_quantized"] = np.array([[128, 130 + shift]], np.uint8)
    return graphs


def test_flan_t5s_rounded_weights_are_widened_and_its_head_is_none_of_its_embeddings() -> None:
    weights = flan_t5_small.weights_of(text_to_text())
    linear, norm, one = [[-2.0], [3.0]], [1.0, 1.0], [[0.0, 1.0]]
    assert {name: value.tolist() for name, value in weights.items()} == {
        "shared.weight": one,
        "lm_head.weight": linear,
        "encoder.final_layer_norm.weight": norm,
        "decoder.final_layer_norm.weight": norm,
        "encoder.block.0.layer.0.SelfAttention.q.weight": linear,
        "decoder.block.0.layer.0.SelfAttention.q.weight": linear,
    }
    with pytest.raises(DataError, match="one embedding"):
        flan_t5_small.weights_of(text_to_text(shift=1))


def packed() -> bytes:
    """A file of one piece, without layers, in the form of e5.c."""
    start = b"E5S1" + struct.pack("<I7ifi", 1, 32, 0, 2, 64, 1, 1, 1, 1e-12, 32)
    pieces = struct.pack("<5iQ", 1, 0, 2, 1, 3, 4) + struct.pack("<2If", 0, 4, -1.5) + "▁a".encode()
    directory = struct.pack("<iI", 0, 0) + struct.pack("<i", 2)
    size = len(start) + len(pieces) + len(directory) + 2 * (2 + 1 + 4 + 16) + len("emb.wordemb.ln.w")
    directory += struct.pack("<H", 8) + b"emb.word" + struct.pack("<BI2Q", 1, 32, size, 18)
    directory += struct.pack("<H", 8) + b"emb.ln.w" + struct.pack("<BI2Q", 0, 2, size + 18, 8)
    block = struct.pack("<e", 0.5) + bytes([0x80] * 15 + [0xF1])
    return start + pieces + directory + block + struct.pack("<2f", 7, 9)


def test_e5s_blocks_of_four_bits_are_widened() -> None:
    contents = multilingual_e5_small.unpacked(packed())
    assert contents.pieces == [("▁a", -1.5)] and (contents.width, contents.layers) == (32, 0)
    assert contents.tensors["emb.ln.w"].tolist() == [7, 9]
    assert contents.tensors["emb.word"].tolist() == [-4.0] * 15 + [-3.5] + [0.0] * 15 + [3.5]


def test_a_cut_file_of_e5_is_refused() -> None:
    for size in range(len(packed())):
        with pytest.raises(DataError, match="got another file"):
            multilingual_e5_small.unpacked(packed()[:size])


def test_e5s_tokenizer_reads_texts_as_xlm_roberta_does() -> None:
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁fi", -1.0), ("a", -3.0)]
    tokenizer = multilingual_e5_small.tokenizer_of([*pieces, ("<mask>", 0.0)])
    assert tokenizer.encode("ﬁ\t\u200b a\u0001").tokens == ["<s>", "▁fi", "▁", "a", "</s>"]
    assert tokenizer.encode("a", "a").tokens == ["<s>", "▁", "a", "</s>", "</s>", "▁", "a", "</s>"]


def test_reactions_are_cut_into_symbols() -> None:
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = reactions_albert.tokenizer_of([*marks, "C", "Cl", "[nH]", ">>", "=", "O", "1"])
    assert tokenizer.encode("CCl=O>>C1[nH]Br").tokens == [
        "[CLS]", "C", "Cl", "=", "O", ">>", "C", "1", "[nH]", "[UNK]", "[SEP]",
    ]  # fmt: skip


def test_weights_that_repeat_others_are_left_out_if_they_do() -> None:
    names = {name: torch.ones(2) for pair in reactions_albert.COPIES.items() for name in pair}
    assert set(reactions_albert.without_copies(names)) == set(reactions_albert.COPIES.values())
    with pytest.raises(DataError, match=r"Expected predictions\.decoder\.bias to be predictions\.bias"):
        reactions_albert.without_copies(names | {"predictions.bias": torch.zeros(2)})
