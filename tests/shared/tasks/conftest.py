"""Tiny encoders with language heads, a table of what each text kind declares and reads, and studies over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from shared.study.declaration import Study
from shared.study.parsing import parse

TEXT_WORDS = [f"word{i}" for i in range(60)] + ["good", "bad", "ada", "paris", "who", "where", "lives", "in", "."]


@pytest.fixture(scope="session")
def text_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, a language head and a word-level vocabulary."""
    folder = tmp_path_factory.mktemp("text-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TEXT_WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**_sizes(len(vocabulary)))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of two layers with random weights, a language head and a byte-level vocabulary."""
    folder = tmp_path_factory.mktemp("text-roberta")
    trained = tokenizers.ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([" ".join(TEXT_WORDS)] * 3, vocab_size=420, special_tokens=marks, show_progress=False)
    trained.save_model(str(folder))
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    tokenizer = transformers.RobertaTokenizer(**files)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = _sizes(len(tokenizer)) | {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    transformers.RobertaForMaskedLM(transformers.RobertaConfig(**sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def text_study(text_bert: Path, text_roberta: Path, tiny_bert: Path) -> Callable[..., Study]:
    """Builds a study of a task over one of the tiny encoders."""
    folders = {"bert": text_bert, "roberta": text_roberta, "headless": tiny_bert}

    def make(task: dict[str, Any], family: str = "bert", **sections: dict[str, Any]) -> Study:
        declared = {
            "study": {"name": "test"},
            "model": {"source": str(folders[family])},
            "task": task,
            "federation": {"rounds": 2, "smallest_declared_size": 4},
            "training": {"local_steps": 2},
        }
        return parse(Study, declared | sections, where="test")

    return make


def _sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 66,
        "initializer_range": 0.2,
    }
