"""What a study declares is compared with what its base model takes, before anything is paid for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build, layout_of
from shared.errors import SettingsError
from shared.study.declaration import Study
from shared.study.parsing import parse

WORDS = ["<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", *(f"word{number}" for number in range(15))]
SMALL: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "pad_token_id": 0,
}
D_MODEL: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "decoder_start_token_id": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
    "forced_eos_token_id": None,
}
_PAD_1 = {"pad_token_id": 1, "bos_token_id": 3, "eos_token_id": 4}
LABELS = {"kind": "sequence-classification", "labels": ["no", "yes"]}
WRITES = {"kind": "seq2seq", "max_target_length": 8}
T = transformers
Family = tuple[dict[str, Any], Callable[[], Any], int | None]
FAMILIES: dict[str, Family] = {
    "bert": (LABELS, lambda: T.BertModel(T.BertConfig(**SMALL, max_position_embeddings=40)), 40),
    "bert of an odd length": (LABELS, lambda: T.BertModel(T.BertConfig(**SMALL, max_position_embeddings=47)), 40),
    "roberta": (LABELS, lambda: T.RobertaModel(T.RobertaConfig(**SMALL | _PAD_1, max_position_embeddings=42)), 40),
    "roberta of other padding": (
        LABELS, lambda: T.RobertaModel(T.RobertaConfig(**SMALL | {"pad_token_id": 7}, max_position_embeddings=48)), 40,
    ),
    "xlm-roberta": (
        LABELS, lambda: T.XLMRobertaModel(T.XLMRobertaConfig(**SMALL | _PAD_1, max_position_embeddings=49)), 40,
    ),
    "mpnet": (LABELS, lambda: T.MPNetModel(T.MPNetConfig(**SMALL | _PAD_1, max_position_embeddings=42)), 40),
    "distilbert": (
        LABELS,
        lambda: T.DistilBertModel(
            T.DistilBertConfig(vocab_size=20, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=40)
        ),
        40,
    ),
    "albert": (
        LABELS, lambda: T.AlbertModel(T.AlbertConfig(**SMALL, embedding_size=8, max_position_embeddings=40)), 40,
    ),
    "electra": (
        LABELS, lambda: T.ElectraModel(T.ElectraConfig(**SMALL, embedding_size=8, max_position_embeddings=40)), 40,
    ),
    "gpt2": (
        {"kind": "causal-lm"},
        lambda: T.GPT2LMHeadModel(T.GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=40)),
        40,
    ),
    "opt": (
        {"kind": "causal-lm"},
        lambda: T.OPTForCausalLM(
            T.OPTConfig(
                vocab_size=20, hidden_size=16, word_embed_proj_dim=16, num_hidden_layers=1, num_attention_heads=2,
                ffn_dim=16, max_position_embeddings=40,
            )
        ),
        40,
    ),
    "llama": (
        {"kind": "causal-lm"},
        lambda: T.LlamaForCausalLM(T.LlamaConfig(**SMALL, num_key_value_heads=1, max_position_embeddings=40)),
        40,
    ),
    "bart": (WRITES, lambda: T.BartForConditionalGeneration(T.BartConfig(**D_MODEL, max_position_embeddings=40)), 40),
    "marian": (WRITES, lambda: T.MarianMTModel(T.MarianConfig(**D_MODEL, max_position_embeddings=40)), 40),
    "t5": (
        WRITES,
        lambda: T.T5ForConditionalGeneration(
            T.T5Config(
                vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, n_positions=40,
                decoder_start_token_id=0,
            )
        ),
        None,
    ),
}  # fmt: skip
"""A task, a tiny model, and the longest record that it can read; None for one without such a limit."""


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            torch.manual_seed(0)
            made[family] = tmp_path_factory.mktemp("family")
            FAMILIES[family][1]().save_pretrained(made[family])
            save_tokenizer(made[family])
        return made[family]

    return folder


def save_tokenizer(folder: Path, *more: str) -> None:
    level = tokenizers.models.WordLevel({word: n for n, word in enumerate([*WORDS, *more])}, unk_token="<unk>")  # noqa: S106
    plain = tokenizers.Tokenizer(level)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<unk>"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, model_input_names=names, **marks)
    made.save_pretrained(folder)


def study(folder: Path, task: dict[str, Any]) -> Study:
    sections = {
        "study": {"name": "test"},
        "model": {"source": str(folder)},
        "task": task,
        "adapter": {"layers": "all"},
        "federation": {"smallest_declared_size": 4},
    }
    return parse(Study, sections, where="test")


@pytest.mark.guarantee(
    "a study that its base model cannot carry out is refused when it is read, before anything is paid for."
)
@pytest.mark.parametrize("family", [name for name, (_, _, longest) in FAMILIES.items() if longest])
def test_the_longest_record_of_a_study_has_positions_or_the_study_is_refused(folder_of: Any, family: str) -> None:
    task, _, longest = FAMILIES[family]
    assert longest is not None
    model = build(study(folder_of(family), task | {"max_length": longest}))
    words = "word1 " * (2 * longest)
    rows = {column.name: ["yes" if column.name == "label" else words] for column in model.kind.columns}
    records = model.kind.encode(rows, model.kind.processor(model.base_files)).records
    assert records["ids"].lengths.tolist() == [longest] and records.usable.all()
    activations = open_activations(model, records, torch.device("cpu"), folder=None, limit_bytes=0)
    assert model.losses(activations.batch([0])).isfinite().all()
    message = rf"^Expected task.max_length of at most {longest} for this base model, got {longest + 1}\.$"
    for read in (build, layout_of):
        with pytest.raises(SettingsError, match=message):
            read(study(folder_of(family), task | {"max_length": longest + 1}))


@pytest.mark.parametrize(
    "family", [name for name, (task, _, longest) in FAMILIES.items() if longest and task is WRITES]
)
def test_the_longest_target_of_a_study_has_positions(folder_of: Any, family: str) -> None:
    short = WRITES | {"max_length": 24}
    layout_of(study(folder_of(family), short | {"max_target_length": 40}))
    with pytest.raises(SettingsError, match=r"task.max_target_length of at most 40 for this base model, got 41"):
        layout_of(study(folder_of(family), short | {"max_target_length": 41}))


def test_relative_positions_have_no_limit(folder_of: Any) -> None:
    layout_of(study(folder_of("t5"), WRITES | {"max_length": 8192, "max_target_length": 8192}))


def test_every_part_of_several_tasks_is_compared(folder_of: Any) -> None:
    tasks = {"mood": LABELS | {"max_length": 40}, "reading": {"kind": "question-answering", "max_length": 41}}
    with pytest.raises(SettingsError, match=r"Expected task.tasks.reading.max_length of at most 40"):
        layout_of(study(folder_of("bert"), {"kind": "multi-task", "tasks": tasks}))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder_of: Any, tmp_path: Path) -> None:
    for file in folder_of("bert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    layout_of(study(tmp_path, LABELS | {"max_length": 24}))
    save_tokenizer(tmp_path, "one-more")
    with pytest.raises(
        SettingsError, match="Expected a tokenizer for the base model's 20 tokens, got one with token 20"
    ):
        layout_of(study(tmp_path, LABELS | {"max_length": 24}))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    FAMILIES["mpnet"][1]().save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"Expected a tokenizer in .*, got no tokenizer.json or vocab.txt"):
        layout_of(study(tmp_path, LABELS | {"max_length": 24}))


def test_a_tokenizer_that_cannot_be_read_is_one_clear_error(folder_of: Any, tmp_path: Path) -> None:
    for file in folder_of("bert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(SettingsError, match="Expected a tokenizer in"):
        layout_of(study(tmp_path, LABELS | {"max_length": 24}))


def test_more_segments_than_the_model_knows_are_refused(folder_of: Any, tmp_path: Path) -> None:
    for file in folder_of("bert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "tokenizer.json"
    plain = json.loads(file.read_text())
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 2}}]
    plain["post_processor"] = {"type": "TemplateProcessing", "single": pair[:1], "pair": pair, "special_tokens": {}}
    file.write_text(json.dumps(plain))
    layout_of(study(tmp_path, LABELS | {"max_length": 24}))
    with pytest.raises(SettingsError, match="Expected a tokenizer for the base model's 2 segments, got one with 3"):
        layout_of(study(tmp_path, LABELS | {"max_length": 24, "pair": True}))


@pytest.mark.parametrize("labels", [256, 300])
def test_a_mask_has_at_most_as_many_classes_as_a_byte_can_tell_apart(labels: int) -> None:
    task = {"kind": "semantic-segmentation", "labels": [f"class {number}" for number in range(labels)]}
    with pytest.raises(SettingsError, match="labels"):
        study(Path(), task)
