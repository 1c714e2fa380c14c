"""Writes a trained adapter: PEFT's own format for the base model, safetensors for the head, the study beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from shared.adapted_model.finished import PACKED_FILE, STUDY_FILE
from shared.adapted_model.model import AdaptedModel
from shared.files import write_atomically
from shared.protocol.messages import Vector, digest
from shared.study.declaration import Study

HEAD_FILE, CARD_FILE = "head.safetensors", "README.md"
NOTHING_MORE: Mapping[str, str] = {}


def write_adapter(
    study: Study,
    model: AdaptedModel,
    adapter: Vector,
    folder: Path,
    *,
    base_fingerprint: str,
    more: Mapping[str, str] = NOTHING_MORE,
) -> None:
    """Write the adapter so that `PeftModel.from_pretrained(base, folder)` and `load_finished(folder)` both load it.

    Args:
        study: that trained it.
        model: of the study; it gets the adapter.
        adapter: packed.
        folder: made if it is not there.
        base_fingerprint: of the base model's files.
        more: facts beside the study's.
    """
    folder.mkdir(parents=True, exist_ok=True)
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
        "base_fingerprint": base_fingerprint,
        **more,
    }
    write_atomically(folder / STUDY_FILE, (json.dumps(facts, indent=1) + "\n").encode())
