"""Model folders as people bring them: each is the model that it was, or refused by name; nothing is silent."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from shared.adapted_model.dry_run import rehearse
from shared.adapted_model.model import AdaptedModel, build, layout_of
from shared.base_models.load import load_base, load_tokenizer
from shared.base_models.locate import BaseModelFiles, find
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.study.declaration import Study
from shared.study.parsing import parse
from tests.support.mutated_models import ANY, FAMILIES, REFUSED, REFUSED_TEXT, SAME, make_folder

Folders = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("family")
            make_folder(family, made[family])
        return made[family]

    return folder


def study(folder: Path, family: str) -> Study:
    sections: dict[str, Any] = {
        "study": {"name": "test"},
        "model": {"source": str(folder)},
        "task": FAMILIES[family][0],
        "adapter": {"layers": "all"},
        "federation": {"smallest_declared_size": 4},
    }
    return parse(Study, sections, where="test")


def outputs(model: AdaptedModel) -> torch.Tensor:
    """The features that the base computes for public records, and the ids of a text where it reads texts."""
    records = model.kind.synthetic(model.config, [5, 3], variant=0)
    batch = collate(records, range(2), model.kind.fills, torch.device("cpu"))
    with torch.no_grad():
        features = model.kind.features(model.kind.run(model.base, batch), batch).flatten()
    if not any(column.name == "image" for column in model.kind.columns):
        ids = load_tokenizer(model.base_files)("word1 word9 other", truncation=True, max_length=16)["input_ids"]
        features = torch.cat([features, torch.tensor(ids, dtype=torch.float32)])
    return features


def fate(family: str, folder: Path, expected: torch.Tensor) -> str:
    """Load a folder as a study does; whatever is raised but a refusal of ours ends the test."""
    try:
        find(study(folder, family).model)
        model = build(study(folder, family))
    except SettingsError as error:
        assert str(error).startswith("Expected ")
        assert ", got" in str(error)
        with pytest.raises(SettingsError):  # nor is it refused only after the layout was computed
            layout_of(study(folder, family), BaseModelFiles(folder, "unread"))
        return "refused"
    try:  # every study's layout is computed before anything is paid for, and its model is run on synthetic records
        layout_of(study(folder, family), BaseModelFiles(folder, "unread"))
        rehearse(model)
    except SettingsError as error:
        assert str(error).startswith("Expected a base model ")
        return "refused"
    found = outputs(model)
    return "same" if found.shape == expected.shape and torch.allclose(found, expected) else "another model"


def mutated(tmp_path: Path, folder_of: Folders, count: int, seed: int) -> Counter[tuple[str, str]]:
    """Load this many mutated folders, kinds and families in turn; count what became of each kind."""
    choice = random.Random(seed)
    expected = {family: outputs(build(study(folder_of(family), family))) for family in FAMILIES}
    kinds = [(fates, name) for fates in (REFUSED, REFUSED_TEXT, SAME, ANY) for name in fates]
    fates = Counter[tuple[str, str]]()
    for number in range(count):
        table, name = kinds[number % len(kinds)]
        texts = [family for family in FAMILIES if family != "vit"]
        family = choice.choice(texts if table is REFUSED_TEXT else list(FAMILIES))
        folder = tmp_path / str(number)
        shutil.copytree(folder_of(family), folder)
        table[name](folder, choice)
        outcome = fate(family, folder, expected[family])
        allowed = {id(SAME): {"same"}, id(ANY): {"same", "refused", "another model"}}.get(id(table), {"refused"})
        assert outcome in allowed, (name, family, folder)
        fates[name, outcome] += 1
        shutil.rmtree(folder)
    return fates


@pytest.mark.guarantee(
    "no part of a base model is random: weights that are missing, of another shape, or of no part of the model are "
    "refused before anything is trained, but for heads of other tasks and parts that no task uses."
)
def test_each_mutated_folder_is_refused_by_name_or_the_same_model(tmp_path: Path, folder_of: Folders) -> None:
    assert mutated(tmp_path, folder_of, 240, seed=1).total() == 240


@pytest.mark.slow
def test_two_thousand_mutated_folders_are_refused_by_name_or_the_same_model(tmp_path: Path, folder_of: Folders) -> None:
    assert mutated(tmp_path, folder_of, 2_000, seed=2).total() == 2_000


MESSAGES = {
    "a tensor is missing": "Expected weights for every part of a bert in .*, got none for 1: ",
    "a shape differs": r"Expected weights of the shapes that config.json .* gives, got \(",
    "NaN or infinity": "got NaN or infinity in ",
    "a layer of zeros": r"Expected weights in .*, got nothing but zeros in ",
    "whole numbers": r"Expected weights of real numbers in .*, got (I64|I32|BOOL) in ",
    "quantised numbers": r"\(quantised\) in ",
    "one layer more than declared": "that it has no place for: ",
    "adapter among the weights": "Expected a base model without an adapter .*lora_A",
    "all names prefixed": "got names that begin with '",
    "truncated weights": "got a damaged or truncated file: ",
    "lost part": "Expected all 2 files that .* names, got none for model-0000",
    "another format": r"Expected \*.safetensors in .*, got (pytorch_model.bin|model-q4.gguf|tf_model.h5)",
    "no configuration": "Expected config.json in .*, got none",
    "cut configuration": "Expected JSON in ",
    "no model type": "Expected model_type in .*, got None",
    "custom code": "Expected a model without code of its own, got auto_map in ",
    "bitsandbytes": "got quantization_config in ",
    "adapter beside the model": "Expected a base model in .*, got an adapter",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_refusal_names_the_fault_and_what_to_do(name: str, tmp_path: Path, folder_of: Folders) -> None:
    folder = tmp_path / "base"
    shutil.copytree(folder_of("bert"), folder)
    REFUSED[name](folder, random.Random(3))
    with pytest.raises(SettingsError, match=MESSAGES[name]) as refusal:
        build(study(folder, "bert"))
    assert refusal.value.hint


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_task_that_writes_needs_the_models_own_language_head(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    make_folder(family, folder)
    weights = load_file(folder / "model.safetensors")
    if "lm_head.weight" in weights:
        without(folder, "lm_head.weight")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(SettingsError, match=r"Expected a base model with a language head, .* got none of lm_head"):
        layout_of(study(folder, family))


def without(folder: Path, name: str) -> None:
    weights = {other: weight.clone() for other, weight in load_file(folder / "model.safetensors").items()}
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_part_of_a_language_head_is_no_language_head(tmp_path: Path, folder_of: Folders) -> None:
    folder = tmp_path / "base"
    shutil.copytree(folder_of("bert-heads"), folder)
    without(folder, "cls.predictions.transform.dense.weight")
    with pytest.raises(SettingsError, match=r"got none for 1: cls.predictions.transform.dense.weight"):
        layout_of(study(folder, "bert-heads"))


def test_a_lack_of_memory_is_no_fault_of_the_folder(folder_of: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(AutoModel, "from_config", full)
    with pytest.raises(MemoryError):
        load_base(BaseModelFiles(folder_of("bert"), "unread"), AutoModel, with_weights=False)
