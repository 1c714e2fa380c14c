"""Hands out a finished adapter: PEFT's own format for the base model, safetensors for the head, the study beside it.

It can also write a complete model, with the adapter in its weights, which plain transformers loads.
"""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from shared.adapted_model.model import AdaptedModel, build
from shared.base_models.load import load_published
from shared.base_models.locate import BaseModelFiles, find
from shared.errors import SettingsError
from shared.files import write_atomically
from shared.protocol.messages import Vector, digest
from shared.records.batches import collate, physical, shapes
from shared.study.declaration import Study, recorded
from shared.study.tasks import SequenceClassification
from shared.tasks.kind import Cell
from shared.tasks.registry import task_kind

HEAD_FILE, STUDY_FILE, PACKED_FILE = "head.safetensors", "fedvault.json", "packed.safetensors"
ADAPTER_FILE, CARD_FILE = "adapter_config.json", "README.md"
PROCESSOR_FILES = (
    "*tokenizer*", "vocab*", "merges.txt", "*.spm", "*.model", "added_tokens.json", "special_tokens_map.json",
    "chat_template*", "normalizer.json", "*processor_config.json",
)  # fmt: skip


def export(study: Study, adapter: Vector, folder: Path) -> None:
    """Write the adapter so that `PeftModel.from_pretrained(base, folder)` and `load_finished(folder)` both load it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build(study)
    model.load(adapter)
    peft = model.peft_model()
    if peft is not None:
        # the base model's folder on this machine is nobody's business; the study names it for everyone
        peft.peft_config["default"].base_model_name_or_path = study.model.source
        peft.save_pretrained(folder, save_embedding_layers=False)
        # PEFT's own card is an empty form with the path of the base model; ours is written where the figures are known
        (folder / CARD_FILE).unlink(missing_ok=True)
    # a frozen head is the base model's own, which everyone has
    head = {name: p.detach().contiguous() for name, p in model.plain_head().named_parameters() if p.requires_grad}
    if head:
        save_file(head, folder / HEAD_FILE)
    save_file({"adapter": torch.from_numpy(adapter)}, folder / PACKED_FILE)
    facts = {
        "study": study.model_dump(mode="json"),
        "study_sha256": study.sha256,
        "adapter_sha256": digest(adapter),
        "base_fingerprint": find(study.model).fingerprint,
    }
    write_atomically(folder / STUDY_FILE, (json.dumps(facts, indent=1) + "\n").encode())


def merge(exported: Path, folder: Path) -> None:
    """Write a complete model from what `export` wrote: weights with the adapter in them, and the base model's tokenizer
    or processor, so that plain transformers loads the folder; a head and the card stay files of their own.

    Raises:
        SettingsError: as `load_finished`.
    """
    study, base_files, _ = _read(exported)
    model = _as_published(study, base_files)
    if (exported / ADAPTER_FILE).exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an attribute's older name
            model = PeftModel.from_pretrained(model, exported).merge_and_unload()
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


class FinishedModel:
    """A trained model that answers rows of the study's task."""

    def __init__(self, study: Study, model: AdaptedModel) -> None:
        self.study, self._model = study, model

    def predict(self, rows: Mapping[str, Sequence[Cell]]) -> list[Any]:
        """Return the model's answer to each row: a label, a rating or a text, as the task has it.

        Args:
            rows: cells by column of the task, without the columns of answers, as in {"text": ["What a day!"]}; images
                and recordings as the bytes of their files.

        Raises:
            SettingsError: a column is missing, or columns are not of one length.
        """
        kind = self._model.kind
        asked = [column for column in kind.columns if column.name not in kind.answers]
        wanted = [column.name for column in asked if not column.optional]
        counts = {len(rows[column.name]) for column in asked if column.name in rows}
        if any(name not in rows for name in wanted) or len(counts) != 1:
            raise SettingsError(f"Expected columns {', '.join(wanted)} of one length, got {', '.join(rows) or 'none'}.")
        (count,) = counts
        blank = {column.name: [b"" if column.media else ""] * count for column in kind.columns}
        records = kind.encode({**blank, **rows}, kind.processor(self._model.base_files)).records
        records = replace(records, usable=np.ones(count, dtype=bool))
        answers: dict[int, Any] = {}
        device, tokens = next(self._model.parameters()).device, self.study.performance.micro_batch_tokens
        with torch.no_grad():
            for part in physical(shapes(records, kind.fills), np.arange(count), tokens=tokens, fixed=kind.fixed_tokens):
                batch = collate(records, part, kind.fills, device)
                answers |= zip(part, kind.predict(self._model, batch, records, part), strict=True)
        return [answers[row] for row in range(count)]

    def classify(self, texts: list[str]) -> list[str]:
        """Return the most likely label of each text.

        Raises:
            SettingsError: the study's task gives no single label to a text.
        """
        task = self.study.task
        if not isinstance(task, SequenceClassification) or task.problem != "single-label" or task.pair:
            raise SettingsError(f"Expected a study that gives each text one label, got task.kind={task.kind!r}.")
        return self.predict({"text": texts})


def load_finished(folder: str | Path) -> FinishedModel:
    """Load what `export` wrote, in one line: `load_finished("runs/vader/adapter").classify(["What a day!"])`.

    Raises:
        SettingsError: not such a folder, a damaged adapter, or another base model than it was trained on.
    """
    study, base_files, packed = _read(Path(folder))
    model = build(study, base_files)
    model.load(packed)
    return FinishedModel(study, model)


class _Exported(NamedTuple):
    study: Study
    base_files: BaseModelFiles
    packed: Vector


def _read(folder: Path) -> _Exported:
    try:
        facts = json.loads((folder / STUDY_FILE).read_text())
        packed = load_file(folder / PACKED_FILE)["adapter"].numpy()
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"Expected an exported adapter in {folder}, got none.", hint=str(error)) from None
    if digest(packed) != facts["adapter_sha256"]:
        raise SettingsError(f"Expected the adapter of {folder} as exported, got a damaged file.")
    study = recorded(facts["study"], where=str(folder / STUDY_FILE))
    pinned = study.model.model_copy(update={"fingerprint": facts["base_fingerprint"]})
    return _Exported(study, find(pinned), packed)


def _as_published(study: Study, base_files: BaseModelFiles) -> PreTrainedModel:
    """Load the base model with its own settings: dropouts that are off while we train are its user's to decide."""
    kind = task_kind(study.task)
    model = load_published(base_files, kind.auto)
    model.config._name_or_path = study.model.source
    kind.adapt(model)
    return model
