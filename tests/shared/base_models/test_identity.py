"""The fingerprint of a base model covers every file that is read of its folder, and no study's fingerprint changes."""

import ast
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.utils import filter_repo_objects

from shared.adapted_model.model import build, layout_of
from shared.base_models.identity import IDENTITY, NEWEST, fingerprint_of, identity_files
from shared.base_models.load import load_feature_extractor, load_tokenizer, read_config
from shared.base_models.locate import BaseModelFiles, find, find_by_fingerprint
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.sections import Model
from shared.tasks.images import image_format_of
from tests.support.mutated_models import FAMILIES, SAME, make_folder

NOT_READ = ("README.md", "training_args.bin", "trainer_state.json", "notes.txt", "onnx/model.onnx")


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[str], Path]:
    """A folder with everything that people and tools put beside a model, its weights in two parts."""

    def make(family: str) -> Path:
        folder = tmp_path / family
        make_folder(family, folder)
        SAME["parts with an index"](folder, random.Random(1))
        (folder / "generation_config.json").write_text('{"max_length": 20}')
        (folder / "onnx").mkdir()
        for name in NOT_READ:
            (folder / name).write_text("{}")
        if (folder / "tokenizer.json").exists():
            write(folder / "special_tokens_map.json", {"sep_token": "[SEP]", "cls_token": "[CLS]"})
            write(folder / "added_tokens.json", {"word3": 8})
            (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
            (folder / "additional_chat_templates").mkdir()
            (folder / "additional_chat_templates" / "short.jinja").write_text("{{ messages[0]['content'] }}")
        else:
            settings = {"size": {"height": 16, "width": 16}, "image_mean": [0.5, 0.5, 0.5]}
            write(folder / "processor_config.json", {"image_processor": settings})
        return folder

    return make


def write(path: Path, declared: Any) -> None:
    path.write_text(json.dumps(declared))


def study(folder: Path, family: str, version: int = NEWEST) -> Study:
    sections = {
        "study": {"name": "test"},
        "model": {"source": str(folder), "fingerprint_version": version},
        "task": FAMILIES[family][0],
        "adapter": {"layers": "all"},
        "federation": {"smallest_declared_size": 4},
    }
    return parse(Study, sections, where="test")


def whole(folder: Path, family: str, scratch: Path) -> list[Any]:
    """All that is computed with a folder: outputs for public records, and what its tokenizer or processor is."""
    model = build(study(folder, family))
    records = model.kind.synthetic(model.config, [5, 3], variant=0)
    batch = collate(records, range(2), model.kind.fills, torch.device("cpu"))
    with torch.no_grad():
        features = model.kind.features(model.kind.run(model.base, batch), batch).tolist()
    shutil.rmtree(scratch, ignore_errors=True)
    if not (folder / "tokenizer.json").exists():
        return [features, image_format_of(folder, model.config)]
    saved = load_tokenizer(model.base_files).save_pretrained(scratch)
    return [features, *((Path(file).name, Path(file).read_bytes()) for file in saved)]


@pytest.mark.guarantee(
    "from fingerprint_version 2 on, a base model's fingerprint covers every file that is read of its folder: each "
    "changed byte changes the fingerprint, is refused, or stands in a file that nothing reads."
)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "vit"])
def test_a_changed_byte_of_any_file_is_seen_refused_or_never_read(
    folder_of: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    folder, choice = folder_of(family), random.Random(3)
    expected, fingerprint = whole(folder, family, tmp_path / "saved"), fingerprint_of(folder, NEWEST)
    never_read = set[str]()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        place = choice.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << choice.randrange(8))]) + content[place + 1 :])
        if fingerprint_of(folder, NEWEST) == fingerprint:
            assert whole(folder, family, tmp_path / "saved") == expected, path
            never_read.add(path.relative_to(folder).as_posix())
        path.write_bytes(content)
    assert never_read == set(NOT_READ)


def test_the_file_of_an_adapter_never_takes_part(folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("bert")
    for alpha in (4, 400):
        write(folder / "adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": alpha})
        with pytest.raises(SettingsError, match="got an adapter"):
            find(study(folder, "bert").model)


def test_every_file_that_a_tokenizer_of_transformers_reads_is_covered(tmp_path: Path) -> None:
    names = {"tokenizer.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"}
    for module in Path(*transformers.models.__path__).glob("*/tokenization_*.py"):
        for statement in ast.parse(module.read_text()).body:
            if isinstance(statement, ast.Assign) and "VOCAB_FILES_NAMES" in ast.dump(statement.targets[0]):
                assert isinstance(statement.value, ast.Dict)
                names |= {value.value for value in statement.value.values if isinstance(value, ast.Constant)}
    assert len(names) > 20
    for name in names:
        (tmp_path / name).write_text("{}")
    assert set(identity_files(tmp_path, NEWEST)) == names


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_folder_without_further_files_has_one_fingerprint(tmp_path: Path, family: str) -> None:
    make_folder(family, tmp_path / "base")
    assert len({fingerprint_of(tmp_path / "base", version) for version in IDENTITY}) == 1


@pytest.mark.guarantee(
    "under fingerprint_version 1 no file outside the fingerprint changes what is computed: a folder where one would is "
    "refused by the file's name."
)
def test_the_first_version_refuses_what_it_leaves_out_only_where_it_changes_anything(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    make_folder("bert", folder)
    first = find(study(folder, "bert", 1).model).fingerprint
    write(folder / "special_tokens_map.json", {"pad_token": "<pad>", "eos_token": "</s>"})
    layout_of(study(folder, "bert", 1))
    write(folder / "special_tokens_map.json", {"pad_token": "<pad>", "cls_token": "[CLS]"})
    assert find(study(folder, "bert", 1).model).fingerprint == first
    for read in (lambda: layout_of(study(folder, "bert", 1)), lambda: load_tokenizer(BaseModelFiles(folder, first))):
        with pytest.raises(
            SettingsError, match=r"^Expected no file .*, got special_tokens_map.json with model.fingerprint_version=1"
        ) as refusal:
            read()
        assert "model.fingerprint_version = 2" in refusal.value.hint
    layout_of(study(folder, "bert"))
    assert find(study(folder, "bert").model).fingerprint != first


def test_an_image_model_saved_with_a_processor_is_read_as_it_was_saved(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    make_folder("vit", folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text()) | {"image_mean": [0.1, 0.2, 0.3]}
    write(folder / "processor_config.json", {"image_processor": settings})
    (folder / "preprocessor_config.json").unlink()
    assert image_format_of(folder, read_config(BaseModelFiles(folder, ""))).mean == (0.1, 0.2, 0.3)
    layout_of(study(folder, "vit"))
    with pytest.raises(SettingsError, match=r"got processor_config.json with model.fingerprint_version=1"):
        layout_of(study(folder, "vit", 1))


def test_a_feature_extractor_outside_the_first_version_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    make_folder("bert", folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(folder)
    nested = json.loads((folder / "preprocessor_config.json").read_text())
    write(folder / "processor_config.json", {"feature_extractor": nested})
    layout_of(study(folder, "bert", 1))
    write(folder / "processor_config.json", {"feature_extractor": nested | {"sampling_rate": 16_000}})
    assert load_feature_extractor(folder).sampling_rate == 16_000
    with pytest.raises(SettingsError, match=r"got processor_config\.json"):
        layout_of(study(folder, "bert", 1))


@pytest.mark.parametrize(
    ("file", "key", "named"),
    [
        ("config.json", "configuration_files", "config.4.0.0.json"),
        ("tokenizer_config.json", "fast_tokenizer_files", "tokenizer.4.0.0.json"),
    ],
)
def test_a_folder_with_files_for_several_versions_of_a_library_is_refused(
    tmp_path: Path, file: str, key: str, named: str
) -> None:
    folder = tmp_path / "base"
    make_folder("bert", folder)
    path = folder / file
    write(path, json.loads(path.read_text()) | {key: [named]})
    with pytest.raises(SettingsError, match=f"got {key} in "):
        layout_of(study(folder, "bert"))


def test_a_node_finds_the_version_that_a_study_names(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "base"
    make_folder("bert", folder)
    write(folder / "special_tokens_map.json", {"pad_token": "<pad>"})
    first, second = (fingerprint_of(folder, version) for version in (1, 2))
    assert first != second
    assert find_by_fingerprint(second, tmp_path / "models", 2).fingerprint_version == 2
    assert find_by_fingerprint(second, tmp_path / "models").directory == folder
    with pytest.raises(SettingsError, match=first[:16]):
        find_by_fingerprint(first, tmp_path / "models", 2)


@pytest.mark.parametrize("version", IDENTITY)
def test_a_model_in_parts_is_downloaded_whole(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    hub = folder_of("bert")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (hub / name).unlink()

    def download(_source: str, *, revision: str, allow_patterns: list[str]) -> str:
        names = [path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (tmp_path / revision / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(hub / name, tmp_path / revision / name)
        return str(tmp_path / revision)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = find(Model(source="org/name", revision="c0ffee", fingerprint_version=version))
    assert found.fingerprint == fingerprint_of(hub, version)
    layout_of(study(hub, "bert", version), found)
