"""Refuse weights that do not fill the model which a task builds: what is missing would be random, and never trained."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from shared.errors import SettingsError

UNUSED_WHEN_MISSING = ("pooler", "masked_spec_embed", "embeddings.mask_token")
"""Parts that no task uses: an untrained pooler is taken out, and masks of inputs are off."""
THROWN_AWAY = frozenset(
    {
        "classifier", "cls", "cls_classifier", "decode_head", "discriminator_predictions", "distillation_classifier",
        "final_logits_bias", "generator_lm_head", "generator_predictions", "head", "lm_head", "masked_spec_embed",
        "pooler", "pre_classifier", "predictions", "project_hid", "project_q", "projector", "proj_out", "qa_outputs",
        "quantizer", "score", "sop_classifier", "vocab_layer_norm", "vocab_projector", "vocab_transform",
    }
)  # fmt: skip
"""Heads of other tasks that a base model's file may hold; a study trains its own, or uses the model's."""
BUFFERS = ("position_ids", "token_type_ids", ".attn.bias", ".attn.masked_bias", "inv_freq", "num_batches_tracked",
           "relative_position_index")  # fmt: skip
"""Ends of the names of constants that older versions wrote among the weights."""
ADAPTERS = (".lora_A", ".lora_B", ".lora_magnitude_vector", ".ia3_l", ".base_layer.", ".lora_embedding_")
MOST_SHOWN = 3


def check_keys(model: nn.Module, loading: Mapping[str, Any], directory: Path) -> None:
    """Compare the names and shapes in a model's files with those of the model.

    Guarantee: no part of a base model is random: weights that are missing, of another shape, or of no part of the model
    are refused before anything is trained, but for heads of other tasks and parts that no task uses.

    Args:
        model: as transformers built it.
        loading: what transformers says of loading it.
        directory: its folder, for the message.

    Raises:
        SettingsError: something is missing, has another shape, or belongs to another model.
    """
    kind = getattr(getattr(model, "config", None), "model_type", "model")
    bare = f"{getattr(model, 'base_model_prefix', '')}."
    missing = sorted(key for key in loading["missing_keys"] if not _inside(key, bare, UNUSED_WHEN_MISSING))
    unexpected = sorted(key for key in loading["unexpected_keys"] if not _thrown_away(key, bare, model))
    foreign = [key for key in unexpected if any(part in key for part in ADAPTERS)]
    if foreign:
        raise SettingsError(
            f"Expected a base model without an adapter in {directory}, got {_shown(foreign)}.",
            hint="Merge the adapter into the weights first, or take the model that it was trained on.",
        )
    _refuse_missing(model, missing, unexpected, kind, directory)
    mismatched = [each for each in loading["mismatched_keys"] if not _inside(each[0], bare, UNUSED_WHEN_MISSING)]
    if mismatched:
        key, filed, built = min(mismatched)
        raise SettingsError(
            f"Expected weights of the shapes that config.json in {directory} gives, got {tuple(filed)} for {key} of "
            f"{tuple(built)}; {len(mismatched)} in all.",
            hint="Configuration and weights do not belong together; copy both from the same model.",
        )
    if unexpected:
        raise SettingsError(
            f"Expected weights of a {kind} in {directory}, got {len(unexpected)} that it has no place for: "
            f"{_shown(unexpected)}.",
            hint="Configuration and weights do not belong together; copy both from the same model.",
        )
    if loading.get("error_msgs"):
        raise SettingsError(f"Expected weights of a {kind} in {directory}, got: {loading['error_msgs'][0]}")


def _refuse_missing(
    model: nn.Module, missing: list[str], unexpected: Collection[str], kind: str, directory: Path
) -> None:
    if not missing:
        return
    beginning = _foreign_beginning(missing, unexpected)
    if beginning:
        raise SettingsError(
            f"Expected the names of a {kind} in {directory}, got names that begin with {beginning!r}.",
            hint=f"Save the weights again without {beginning!r}: DataParallel, torch.compile or a wrapper left it.",
        )
    if all(key.split(".")[0] == head_of(model) for key in missing):
        _refuse_headless(missing)
    raise SettingsError(
        f"Expected weights for every part of a {kind} in {directory}, got none for {len(missing)}: {_shown(missing)}.",
        hint="What is missing would be random. Copy all files of the model, with the config.json that belongs to them.",
    )


def check_language_head(model: nn.Module, names: Collection[str]) -> None:
    """Refuse weights without a language head where the configuration says that it is not the embeddings.

    Some model classes tie the two whatever the configuration says: they would then write with another head, unsaid.

    Args:
        model: as transformers built it.
        names: of the weights in its files.

    Raises:
        SettingsError: the model has such a head, and the files do not.
    """
    head = head_of(model)
    if head is not None and not any(name.split(".")[-2:-1] == [head] for name in names):
        _refuse_headless([f"{head}.weight"])


def head_of(model: nn.Module) -> str | None:
    """Return the name of a model's language head; None if it has none, or it is no part of the outermost module."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    return next((name for name, module in model.named_children() if module is output), None)


def _refuse_headless(missing: list[str]) -> NoReturn:
    raise SettingsError(
        f"Expected a base model with a language head, which the task needs, got none of {_shown(missing)}.",
        hint="Choose a model that was saved with its language head, or another task.",
    )


def _foreign_beginning(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """Return what stands before the right name in every name that has no place; None if that is not the fault."""
    for key in sorted(unexpected):
        for name in missing:
            beginning = key.removesuffix(name)
            if beginning != key and all(other.startswith(beginning) for other in unexpected):
                return beginning
    return None


def _thrown_away(key: str, bare: str, model: nn.Module) -> bool:
    first = key.removeprefix(bare).split(".")[0]
    other_decoder = first == "decoder" and not hasattr(getattr(model, "base_model", model), "decoder")
    return first in THROWN_AWAY or other_decoder or key.endswith(BUFFERS)


def _inside(key: str, bare: str, parts: tuple[str, ...]) -> bool:
    name = key.removeprefix(bare)
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _shown(keys: list[str]) -> str:
    return ", ".join(keys[:MOST_SHOWN]) + (", …" if len(keys) > MOST_SHOWN else "")
