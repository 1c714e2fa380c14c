"""Hands out a finished adapter: PEFT's own format for the base model, safetensors for the head, the study beside it.

It can also write a complete model, with the adapter in its weights, which plain transformers loads.
"""

import shutil
import warnings
from fnmatch import fnmatch
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from shared.adapted_model.export import CARD_FILE, HEAD_FILE, write_adapter
from shared.adapted_model.finished import PACKED_FILE, STUDY_FILE, load_finished, read_exported
from shared.adapted_model.model import build
from shared.base_models.load import load_published
from shared.base_models.locate import BaseModelFiles, find
from shared.errors import SettingsError
from shared.protocol.messages import Vector
from shared.study.declaration import Study
from shared.tasks.registry import task_kind

__all__ = ["CARD_FILE", "HEAD_FILE", "PACKED_FILE", "STUDY_FILE", "as_peft", "export", "load_finished", "merge"]

ADAPTER_FILE = "adapter_config.json"
PROCESSOR_FILES = (
    "*tokenizer*", "vocab*", "merges.txt", "*.spm", "*.model", "added_tokens.json", "special_tokens_map.json",
    "chat_template*", "normalizer.json", "*processor_config.json",
)  # fmt: skip


def export(study: Study, adapter: Vector, folder: Path) -> None:
    """Write the adapter so that `PeftModel.from_pretrained(base, folder)` and `load_finished(folder)` both load it."""
    write_adapter(study, build(study), adapter, folder, base_fingerprint=find(study.model).fingerprint)


def merge(exported: Path, folder: Path) -> None:
    """Write a complete model from what `export` wrote: weights with the adapter in them, and the base model's tokenizer
    or processor, so that plain transformers loads the folder; a head and the card stay files of their own.

    Raises:
        SettingsError: as `load_finished`.
    """
    study, base_files, _ = read_exported(exported)
    has_adapter = (exported / ADAPTER_FILE).exists()
    model = as_peft(exported).merge_and_unload() if has_adapter else _as_published(study, base_files)
    if model.can_generate():
        for settings in (model.config, model.generation_config):
            settings.use_cache = True  # who trained the base model may have left it off
    model.save_pretrained(folder)
    for path in sorted(base_files.directory.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in PROCESSOR_FILES):
            shutil.copy(path, folder / path.name)
    for name in (HEAD_FILE, STUDY_FILE, CARD_FILE):
        if (exported / name).exists():
            shutil.copy(exported / name, folder / name)


def as_peft(exported: Path) -> PeftModel:
    """Load the base model with an exported adapter, in evaluation mode; a head stays a file of its own.

    Raises:
        SettingsError: as `load_finished`, or the study trained no adapter.
    """
    study, base_files, _ = read_exported(exported)
    if not (exported / ADAPTER_FILE).exists():
        raise SettingsError(
            f"Expected an adapter in {exported}, got a head alone (adapter.method={study.adapter.method!r}).",
            hint="load_finished(folder).predict(rows) answers with the head.",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an attribute's older name
        return PeftModel.from_pretrained(_as_published(study, base_files), exported).eval()


def _as_published(study: Study, base_files: BaseModelFiles) -> PreTrainedModel:
    """Load the base model with its own settings: dropouts that are off while we train are its user's to decide."""
    kind = task_kind(study.task)
    model = load_published(base_files, kind.auto)
    model.config._name_or_path = study.model.source
    kind.adapt(model)
    return model
