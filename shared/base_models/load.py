"""Load a frozen base model for a task: with a language head or without, in float32, and deterministic."""

import logging
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError

log = logging.getLogger(__name__)

DROPOUTS = (
    "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout",
    "classifier_dropout_prob", "classifier_proj_size_dropout", "drop_path_rate", "dropout", "dropout_rate",
    "embd_pdrop", "feat_proj_dropout", "feat_quantizer_dropout", "final_dropout", "hidden_dropout",
    "hidden_dropout_prob", "qa_dropout", "resid_pdrop", "seq_classif_dropout", "summary_first_dropout",
)  # fmt: skip
LAYER_DROPS = ("decoder_layerdrop", "encoder_layerdrop", "layerdrop")
MASKINGS = ("mask_feature_prob", "mask_time_prob")


def load_base(base_files: BaseModelFiles, auto: Any, *, with_weights: bool = True) -> PreTrainedModel:
    """Load the model in float32, in evaluation mode, without dropout and without an untrained pooler.

    Args:
        base_files: the model's files on this machine.
        auto: the transformers class that the task needs, such as AutoModel or AutoModelForCausalLM.
        with_weights: False gives shapes only (meta tensors), for code that needs the layout and no arithmetic.

    Raises:
        SettingsError: the model has no such form, or mixes records by batch statistics.
    """
    config = AutoConfig.from_pretrained(base_files.directory, trust_remote_code=False, local_files_only=True)
    _switch_off(config)
    try:
        if with_weights:
            model = auto.from_pretrained(
                base_files.directory, config=config, use_safetensors=True, local_files_only=True, dtype=torch.float32
            )
        else:
            with torch.device("meta"):
                model = auto.from_config(config, trust_remote_code=False)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise SettingsError(
            f"Expected a base model that suits the task, got model type {config.model_type!r}.",
            hint=f"transformers has no {auto.__name__} for it.",
        ) from None
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    _refuse_batch_statistics(model)
    _silence_padding_check(model)
    loaded: PreTrainedModel = model.eval().requires_grad_(False)
    return loaded


def width_of(config: PretrainedConfig) -> int:
    """Return the width of a model's last hidden states."""
    for name in ("hidden_size", "d_model", "n_embd", "dim"):
        width = getattr(config, name, None)
        if isinstance(width, int):
            return width
    sizes = getattr(config, "hidden_sizes", None)
    if sizes:
        return int(sizes[-1])
    raise SettingsError(f"Expected a model with a hidden size, got {config.model_type!r}.")


def _switch_off(config: PretrainedConfig) -> None:
    for name in (*DROPOUTS, *LAYER_DROPS, *MASKINGS):
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value:
            if name in LAYER_DROPS or name in MASKINGS:
                log.info("%s=%g of the base model is switched off: gradients would not be exact.", name, value)
            setattr(config, name, 0.0)
    if getattr(config, "apply_spec_augment", False):
        config.apply_spec_augment = False
    config.use_cache = False


def _silence_padding_check(model: nn.Module) -> None:
    """Switch off a warning for which some models search the ids for padding: vectorised gradients cannot search."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.warn_if_padding_and_no_attention_mask = _say_nothing


def _say_nothing(*_: Any, **__: Any) -> None:
    """Replace the warning about padding: a batch without a mask has none."""


def _refuse_batch_statistics(model: nn.Module) -> None:
    """Refuse a batch norm without stored statistics, which would mix the records of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.track_running_stats:
            raise SettingsError(
                f"Expected norms of one record each, got {name} ({type(module).__name__}) over a batch."
            )
