"""What other ways of federating the same model would send, in bytes."""

from shared.adapted_model import AdaptedModel
from shared.base_model import load_base
from shared.foundation import find
from shared.study import Adapter, Study
from shared.tasks.kinds import task_kind

FLOAT_BYTES = 4


def full_lora_bytes(study: Study) -> int:
    """A and B of every layer, and the head."""
    adapter = Adapter(rank=study.adapter.rank, target_modules=study.adapter.target_modules, layers="all")
    model = AdaptedModel(study.model_copy(update={"adapter": adapter}), find(study.model), with_weights=False)
    sent = (p.numel() for name, p in model.named_parameters() if ".lora_" in name or name.startswith("head."))
    return FLOAT_BYTES * sum(sent)


def full_model_bytes(study: Study) -> int:
    """Every weight of the base model."""
    base = load_base(find(study.model), task_kind(study.task).auto, with_weights=False)
    sizes: list[int] = [p.numel() for p in base.parameters()]
    return FLOAT_BYTES * sum(sizes)
