"""A small T5 with random weights, for the plumbing of translation: a three-hundredth of Flan-T5-small.

Only its tokenizer has learned anything: pieces of words from the messages of one program. Weights follow from a seed.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from simulations.datasets.models.converted import save_weights, write_json
from simulations.datasets.text import translations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROJECT = "wagtail"
VOCABULARY, WIDTH, LAYERS, HEADS, SEED = 1000, 64, 2, 4, 20
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SOURCE_NOTE = """# A small T5 with random weights

Made by FedVault itself (simulations/datasets/models/small_t5.py): 1,000 pieces of words from the English and German
messages of Wagtail (BSD-3-Clause), two layers each way, width 64. It has learned nothing and shows only
that everything runs.
"""


def build(folder: Path) -> None:
    """Write a folder with weights, configuration and tokenizer."""
    with tempfile.TemporaryDirectory() as scratch:
        translations.build(Path(scratch))
        table = pd.read_csv(Path(scratch, "translations.csv"), dtype=str, keep_default_na=False)
    chosen = table[table["project"] == PROJECT]
    write([*chosen["source"], *chosen["target"]], folder)


def write(texts: Iterable[str], folder: Path) -> None:
    """Write a fresh model whose tokenizer knows the pieces of these texts."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = trained_tokenizer(texts)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=2 * WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = T5ForConditionalGeneration(config)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    save_weights({name: value for name, value in model.state_dict().items() if name not in tied}, folder)
    write_json(folder / "config.json", config.to_dict() | {"architectures": [type(model).__name__]})
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings, without=("is_local", "local_files_only", "name_or_path"))
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def trained_tokenizer(texts: Iterable[str]) -> "PreTrainedTokenizerBase":
    """Train a tokenizer of word pieces, the most frequent pairs joined; every text ends with T5's end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE(unk_token=UNKNOWN))
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    marks = [PAD, END, UNKNOWN]
    pieces.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=marks, show_progress=False)
    )
    pieces.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, marks.index(END))])
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_input_names=["input_ids", "attention_mask"],
    )
