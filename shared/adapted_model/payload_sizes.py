"""Count the bytes that a node sends in one round, and those of other ways to federate the same model."""

from shared.adapted_model.model import AdaptedModel
from shared.base_models.load import load_base
from shared.base_models.locate import BaseModelFiles, find
from shared.errors import SettingsError
from shared.protocol.update_encoding import WIRES, packed_bytes
from shared.study.declaration import Study
from shared.study.sections import Adapter
from shared.tasks.registry import task_kind


def adapter_bytes(study: Study, base_files: BaseModelFiles | None = None) -> dict[str, int]:
    """Return the bytes of one update of a study, by encoding."""
    length = AdaptedModel(study, base_files or find(study.model), with_weights=False).layout.length
    return {wire: packed_bytes(length, wire) for wire in WIRES}


def full_lora_bytes(study: Study, base_files: BaseModelFiles | None = None) -> int | None:
    """Return the bytes of A and B of every layer, and of the head, as float32; None if no such LoRA fits."""
    adapter = Adapter(rank=study.adapter.rank, target_modules=study.adapter.target_modules, layers="all")
    changed = study.model_copy(update={"adapter": adapter})
    base_files = base_files or find(study.model)
    try:
        model = AdaptedModel(changed, base_files, with_weights=False)
    except SettingsError:  # a comparison only: the study itself may train a head alone
        return None
    sent = (p.numel() for name, p in model.named_parameters() if ".lora_" in name or name.startswith("head."))
    return packed_bytes(sum(sent), "float32")


def full_model_bytes(study: Study, base_files: BaseModelFiles | None = None) -> int:
    """Return the bytes of every weight of the base model, as float32."""
    base = load_base(base_files or find(study.model), task_kind(study.task).auto, with_weights=False)
    sizes: list[int] = [p.numel() for p in base.parameters()]
    return packed_bytes(sum(sizes), "float32")
