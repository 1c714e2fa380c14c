"""Find the layers that an adapter is put on: query and value of every attention, wherever a model family keeps them.

A rule reads them off the loaded model, so that a new family needs no entry in a table. Models with one layer for query,
key and value together are adapted there. What the rule gives for a family never changes: the layout of an adapter, and
so what is sent, follows from it.
"""

import re

from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as IA3_TABLE
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shared.errors import SettingsError
from shared.study.sections import Adapter

EXCEPTIONS = {
    "blip-2": ("q", "v", "q_proj", "v_proj"),
    "nemotron_h": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "rwkv": ("key", "value", "receptance", "output"),
}
"""Families whose targets are others than the rule's: those of PEFT, which studies of these families have always had."""
QUERY_OR_VALUE = re.compile(r"(q|v|query|value)(_proj|_lin)?")
FUSED = re.compile(r"c_attn|in_proj|query_key_value|W?qkv(_proj)?")


def targets_of(base: PreTrainedModel, adapter: Adapter) -> list[str]:
    """Return the names of the layers to adapt, each the end of a module's path or all of it.

    Raises:
        SettingsError: the study leaves the choice to us, and the model has no attention of a known form.
    """
    if adapter.target_modules != "auto":
        return list(adapter.target_modules)
    kind = base.config.model_type
    table = IA3_TABLE if adapter.method == "ia3" else EXCEPTIONS
    if kind in table:
        return list(table[kind])
    targets = [] if adapter.method == "ia3" else _query_and_value(base)
    if not targets:
        raise SettingsError(
            f"Expected a model whose attention has layers named as query and value, got {kind!r}.",
            hint="Name the layers yourself in adapter.target_modules.",
        )
    return targets


def _query_and_value(base: nn.Module) -> list[str]:
    """Return the last parts of the paths of the layers; whole paths if modules elsewhere bear these names, too."""
    inside = _inside_attention(base)
    for wanted in (QUERY_OR_VALUE, FUSED):
        paths = [path for path in inside if wanted.fullmatch(_last(path))]
        names = sorted({_last(path) for path in paths})
        if names:
            everywhere = [path for path, _ in base.named_modules() if _last(path) in names]
            return names if everywhere == paths else paths
    return []


def _inside_attention(base: nn.Module) -> list[str]:
    """Return the paths of the linear layers inside attention modules, in the model's order."""
    attentions = tuple(f"{path}." for path, module in base.named_modules() if "Attention" in type(module).__name__)
    return [
        path
        for path, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and path.startswith(attentions)
    ]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def refuse_other_names(base: PreTrainedModel, adapter: Adapter, targets: list[str]) -> None:
    """Refuse names that no layer has, which would be left out without a word, and a head that is the embeddings.

    Args:
        base: before the adapter is put on it.
        adapter: as the study declares it.
        targets: the names of the layers to adapt.

    Raises:
        SettingsError: there is such a name.
    """
    paths = [path for path, _ in base.named_modules()]
    named = list(adapter.target_modules) if adapter.target_modules != "auto" else []
    missing = [name for name in named if not any(f".{path}".endswith(f".{name}") for path in paths)]
    adapted = [path for path in paths if f".{path}".endswith(tuple(f".{target}" for target in targets))]
    ranked = [
        key for key in adapter.rank_pattern if not any(re.fullmatch(rf"(.*\.)?({key})", path) for path in adapted)
    ]
    for setting, absent in (("target_modules", missing), ("rank_pattern", ranked)):
        if absent:
            raise SettingsError(
                f"Expected adapter.{setting} to name layers of the model, got {absent[0]!r}, which none has.",
                hint=f"It has {', '.join(sorted({_last(path) for path in adapted})) or 'others'}.",
            )
    head = base.get_output_embeddings() if named else None
    tied = head is not None and head.weight is base.get_input_embeddings().weight
    if tied and any(module is head for path, module in base.named_modules() if path in adapted):
        raise SettingsError(
            "Expected adapter.target_modules without the language head, whose weights are the model's embeddings.",
            hint="An adapter on one of the two would be merged into both.",
        )
