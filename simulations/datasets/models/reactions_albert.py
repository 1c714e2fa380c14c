"""A language model of chemical reactions (ALBERT, 0.7 M parameters, 3 MB): small, and pretrained by somebody else."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import DataError
from simulations.datasets.download import packages, read_member
from simulations.datasets.models.converted import save_weights, write_json

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

FOLDER = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
SYMBOLS = r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|\%[0-9]{2}|[0-9]"
"""Atoms, bonds and marks of a reaction in SMILES, as the package cuts it."""
EMBEDDING = "albert.embeddings.word_embeddings.weight"
COPIES = {"predictions.decoder.weight": EMBEDDING, "predictions.decoder.bias": "predictions.bias"}
PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SOURCE_NOTE = """# ALBERT of chemical reactions

A masked language model of 1.3 million reactions from United States patents, by IBM Research: P. Schwaller et al.,
"Extraction of organic chemistry grammar from unsupervised learning of chemical reactions", Science Advances 2021. MIT.
From the package rxnmapper 0.4.3, its weights as they are. The tokenizer is made of
the package's vocabulary and of its rule for cutting a reaction in SMILES into symbols.
"""


def build(folder: Path) -> None:
    """Fill a folder with weights, language head, configuration and tokenizer."""
    import torch

    with packages("reactions-albert") as wheels:
        files = {
            name: read_member(wheels, "rxnmapper", f"{FOLDER}/{name}")
            for name in ("pytorch_model.bin", "config.json", "vocab.txt")
        }
    checkpoint = torch.load(io.BytesIO(files["pytorch_model.bin"]), map_location="cpu", weights_only=True)
    save_weights(without_copies(checkpoint), folder)
    write_json(folder / "config.json", json.loads(files["config.json"]) | {"dtype": "float32"})
    tokenizer_of(files["vocab.txt"].decode().splitlines()).save(str(folder / "tokenizer.json"))
    marks = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": START, "sep_token": END, "mask_token": MASK}
    names = {"model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", marks | names)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def without_copies(weights: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Return the weights without those that repeat others, which a model of this kind ties.

    Raises:
        DataError: one of them is not the same as what it should repeat.
    """
    for copy, original in COPIES.items():
        if not weights[copy].equal(weights[original]):
            raise DataError(f"Expected {copy} to be {original}, got other numbers.")
    return {name: value for name, value in weights.items() if name not in COPIES}


def tokenizer_of(vocabulary: list[str]) -> "Tokenizer":
    """Make a tokenizer that cuts a reaction into symbols; one that the vocabulary lacks is unknown."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    numbers = {symbol: number for number, symbol in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SYMBOLS), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} $B:1 {END}:1",
        special_tokens=[(mark, numbers[mark]) for mark in (START, END)],
    )
    tokenizer.add_special_tokens([PAD, UNKNOWN, START, END, MASK])
    return tokenizer
