"""Hand out a finished adapter: PEFT's own format for the encoder, safetensors for the head, and the study beside it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from shared.adapted_model import AdaptedModel, build
from shared.errors import SettingsError
from shared.files import write_atomically
from shared.foundation import find
from shared.judging import judge
from shared.protocol import Vector, digest
from shared.study import Study, parse
from shared.tasks.declarations import SequenceClassification

HEAD_FILE, STUDY_FILE, PACKED_FILE = "head.safetensors", "fedvault.json", "packed.safetensors"


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
    # a frozen head is the base model's own, which everyone has
    head = {name: p.detach().contiguous() for name, p in model.head.named_parameters() if p.requires_grad}
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


class FinishedModel:
    """A trained model that answers."""

    def __init__(self, study: Study, model: AdaptedModel) -> None:
        self.study, self._model = study, model

    def classify(self, texts: list[str]) -> list[str]:
        """The most likely label of each text.

        Raises:
            SettingsError: the study's task gives no single label to a text.
        """
        task = self.study.task
        if not isinstance(task, SequenceClassification) or task.problem != "single-label" or task.pair:
            raise SettingsError(f"Expected a study that gives each text one label, got task.kind={task.kind!r}.")
        rows = {"text": texts, "label": [task.labels[0]] * len(texts)}
        records = self._model.kind.encode(rows, self._model.kind.processor(self._model.foundation)).records
        everyone = replace(records, usable=np.ones(len(texts), dtype=bool))
        found = judge(self._model, everyone, tokens=self.study.performance.micro_batch_tokens)
        return [task.labels[predicted] for predicted, _ in found.evidence]


def load_finished(folder: str | Path) -> FinishedModel:
    """Load what `export` wrote, in one line: `load_finished("runs/demo/adapter").classify(["What a day!"])`.

    Raises:
        SettingsError: not such a folder, a damaged adapter, or another base model than it was trained on.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / STUDY_FILE).read_text())
        packed = load_file(folder / PACKED_FILE)["adapter"].numpy()
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"Expected an exported adapter in {folder}, got none.", hint=str(error)) from None
    if digest(packed) != facts["adapter_sha256"]:
        raise SettingsError(f"Expected the adapter of {folder} as exported, got a damaged file.")
    study = parse(Study, facts["study"], where=str(folder / STUDY_FILE))
    pinned = study.model.model_copy(update={"fingerprint": facts["base_fingerprint"]})
    find(pinned)
    model = build(study)
    model.load(packed)
    return FinishedModel(study, model)
