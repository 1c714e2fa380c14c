"""Loads a finished adapter from the folder that an export wrote, and answers rows with it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from shared.adapted_model.model import AdaptedModel, build
from shared.base_models.locate import BaseModelFiles, find
from shared.errors import SettingsError
from shared.protocol.messages import Vector, digest
from shared.records.batches import collate, physical, shapes
from shared.records.ragged import Records
from shared.study.declaration import Study, recorded
from shared.study.tasks import SequenceClassification
from shared.tasks.kind import Cell

STUDY_FILE, PACKED_FILE = "fedvault.json", "packed.safetensors"


class FinishedModel:
    """A trained model that answers rows of the study's task."""

    def __init__(self, study: Study, model: AdaptedModel) -> None:
        self.study, self.model = study, model

    def predict(self, rows: Mapping[str, Sequence[Cell]]) -> list[Any]:
        """Return the model's answer to each row: a label, a rating or a text, as the task has it.

        Args:
            rows: cells by column of the task, without the columns of answers, as in {"text": ["What a day!"]}; images
                and recordings as the bytes of their files.

        Raises:
            SettingsError: a column is missing, or columns are not of one length.
        """
        records, kind = self.encode(rows), self.model.kind
        answers: dict[int, Any] = {}
        device, tokens = next(self.model.parameters()).device, self.study.performance.micro_batch_tokens
        with torch.no_grad():
            for part in physical(
                shapes(records, kind.fills), np.arange(len(records)), tokens=tokens, fixed=kind.fixed_tokens
            ):
                batch = collate(records, part, kind.fills, device)
                answers |= zip(part, kind.predict(self.model, batch, records, part), strict=True)
        return [answers[row] for row in range(len(records))]

    def encode(self, rows: Mapping[str, Sequence[Cell]]) -> Records:
        """Encode rows as `predict` takes them; the model answers every one, usable for training or not.

        Raises:
            SettingsError: a column is missing, or columns are not of one length.
        """
        kind = self.model.kind
        asked = [column for column in kind.columns if column.name not in kind.answers]
        wanted = [column.name for column in asked if not column.optional]
        counts = {len(rows[column.name]) for column in asked if column.name in rows}
        if any(name not in rows for name in wanted) or len(counts) != 1:
            raise SettingsError(f"Expected columns {', '.join(wanted)} of one length, got {', '.join(rows) or 'none'}.")
        (count,) = counts
        blank = {column.name: [b"" if column.media else ""] * count for column in kind.columns}
        records = kind.encode({**blank, **rows}, kind.processor(self.model.base_files)).records
        return replace(records, usable=np.ones(count, dtype=bool))

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
    study, base_files, packed = read_exported(Path(folder))
    model = build(study, base_files)
    model.load(packed)
    return FinishedModel(study, model)


class Exported(NamedTuple):
    """The content of an exported folder."""

    study: Study
    base_files: BaseModelFiles
    packed: Vector


def read_exported(folder: Path) -> Exported:
    """Read a folder that an export wrote.

    Raises:
        SettingsError: as `load_finished`.
    """
    study, fingerprint, packed = read_packed(folder)
    return Exported(study, find(study.model.model_copy(update={"fingerprint": fingerprint})), packed)


class Packed(NamedTuple):
    """The content of an exported folder, read without its base model."""

    study: Study
    base_fingerprint: str
    packed: Vector


def read_packed(folder: Path) -> Packed:
    """Read a folder that an export wrote, on a machine that may have its base model elsewhere.

    Raises:
        SettingsError: not such a folder, or a damaged adapter.
    """
    try:
        facts = json.loads((folder / STUDY_FILE).read_text())
        packed = load_file(folder / PACKED_FILE)["adapter"].numpy()
    except FileNotFoundError as error:
        missing = Path(str(error.filename or PACKED_FILE)).name
        hint = f"It has no {missing}. Such a folder is `adapter` in a run's, or what `fedvault-server export` wrote."
        raise SettingsError(f"Expected an exported adapter in {folder}, got none.", hint=hint) from None
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"Expected an exported adapter in {folder}, got none.", hint=str(error)) from None
    if digest(packed) != facts["adapter_sha256"]:
        raise SettingsError(f"Expected the adapter of {folder} as exported, got a damaged file.")
    study = recorded(facts["study"], where=str(folder / STUDY_FILE))
    return Packed(study, str(facts["base_fingerprint"]), packed)
