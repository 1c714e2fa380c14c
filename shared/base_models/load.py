"""Load what a base model's folder holds: the one place where transformers opens it, for simulation, node and server.

Base models are frozen, in the numbers that the study says and deterministic, with a language head or without. Whatever
is unfit about a folder is refused by name, before anything is trained or paid for.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from shared.base_models.covered import HERE, refuse_uncovered
from shared.base_models.four_bits import quantise
from shared.base_models.loaded_keys import check_keys, check_language_head
from shared.base_models.locate import BaseModelFiles
from shared.base_models.model_folder import (
    CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZER_CONFIG,
    Unchanged,
    check_folder,
    names_of_weights,
    read_json,
    refuse_custom_code,
    state_of,
)
from shared.errors import FedVaultError, SettingsError
from shared.study.sections import BaseWeights

log = logging.getLogger(__name__)

DROPOUTS = (
    "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout",
    "classifier_dropout_prob", "classifier_proj_size_dropout", "drop_path_rate", "dropout", "dropout_rate",
    "embd_pdrop", "feat_proj_dropout", "feat_quantizer_dropout", "final_dropout", "hidden_dropout",
    "hidden_dropout_prob", "qa_dropout", "resid_pdrop", "seq_classif_dropout", "summary_first_dropout",
)  # fmt: skip
LAYER_DROPS = ("decoder_layerdrop", "encoder_layerdrop", "layerdrop")
MASKINGS = ("mask_feature_prob", "mask_time_prob")
SPARSE = "block_sparse"
"""BigBird's attention for long texts, with blocks drawn at random; the first short text ends it for all later ones."""


SEGMENTS = "token_type_ids"
EXTRACTORS = (PREPROCESSOR, PROCESSOR)
OPTIONAL_TOKENIZER_FILES = ("tokenizer_file", "target_vocab_file", "normalizer_file", "added_tokens_file")


def load_base(
    base_files: BaseModelFiles, auto: Any, *, with_weights: bool = True, base_weights: BaseWeights = "float32"
) -> PreTrainedModel:
    """Load the model in evaluation mode, without dropout and without an untrained pooler.

    Args:
        base_files: the model's files on this machine.
        auto: the transformers class that the task needs, such as AutoModel or AutoModelForCausalLM.
        with_weights: False gives shapes only (meta tensors, float32), for code that needs the layout and no arithmetic.
            The files are checked all the same.
        base_weights: in which numbers, as the study says.

    Raises:
        SettingsError: the folder is unfit, the model has no such form, or mixes records by batch statistics.
    """
    config = read_config(base_files)
    _switch_off(config)
    check_folder(base_files.directory)
    refuse_uncovered(base_files.directory, base_files.fingerprint_version)
    _check_form(base_files.directory, state_of(base_files.directory), auto)
    with in_our_words("a base model", base_files.directory):
        if with_weights:
            dtype = torch.float32 if base_weights == "float32" else torch.bfloat16
            model, _ = _opened(base_files.directory, auto, config, dtype=dtype)
        else:
            with torch.device("meta"):
                model = auto.from_config(config, trust_remote_code=False)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    _refuse_batch_statistics(model)
    _silence_padding_check(model)
    loaded: PreTrainedModel = model.eval().requires_grad_(False)
    for module in loaded.modules():
        if hasattr(module, "layers_are_rescaled"):
            module.layers_are_rescaled = True  # as its first pass would say, whatever it is given
    if with_weights and base_weights == "4bit":
        quantise(loaded)
    return loaded


def load_published(base_files: BaseModelFiles, auto: Any) -> PreTrainedModel:
    """Load the model with its own settings: dropouts that are off while we train are its user's to decide.

    Raises:
        SettingsError: as `load_base`.
    """
    config = read_config(base_files)
    check_folder(base_files.directory)
    _check_form(base_files.directory, state_of(base_files.directory), auto)
    with in_our_words("a base model", base_files.directory):
        model, _ = _opened(base_files.directory, auto, config)
    return model


def read_config(base_files: BaseModelFiles) -> PretrainedConfig:
    """Read the model's configuration.

    Raises:
        SettingsError: it cannot be read, or the folder is unfit.
    """
    check_folder(base_files.directory)
    with in_our_words("a config.json that transformers reads", base_files.directory):
        return AutoConfig.from_pretrained(base_files.directory, **HERE)


def load_tokenizer(base_files: BaseModelFiles) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to the base model, from files of its folder alone.

    Raises:
        SettingsError: the model's folder holds none that can be read.
    """
    directory = base_files.directory
    _check_tokenizer_config(directory / TOKENIZER_CONFIG)
    refuse_uncovered(directory, base_files.fingerprint_version)
    with in_our_words("a tokenizer", directory):
        tokenizer = AutoTokenizer.from_pretrained(directory, **HERE)
        known, marks = len(tokenizer.get_vocab()), len(set(tokenizer.all_special_ids))
    absent = _absent_files(tokenizer, directory)
    if absent:
        raise SettingsError(
            f"Expected a tokenizer in {directory}, got no {' or '.join(absent)}.",
            hint="Copy tokenizer.json, or all the files that the model's tokenizer reads, into the folder.",
        )
    if known <= marks:
        raise SettingsError(
            f"Expected a tokenizer that knows words in {directory}, got one of {known} marks.",
            hint="Copy the model's own tokenizer.json: every text would be read as unknown.",
        )
    _mark_segments(tokenizer, base_files)
    return tokenizer


def _mark_segments(tokenizer: PreTrainedTokenizerBase, base_files: BaseModelFiles) -> None:
    """Let a tokenizer say which text of a pair a token is of, where the model reads it and the folder does not ask."""
    names = list(tokenizer.model_input_names)
    if SEGMENTS not in names and (getattr(read_config(base_files), "type_vocab_size", 1) or 1) > 1:
        tokenizer.model_input_names = [*names, SEGMENTS]


def _check_tokenizer_config(path: Path) -> None:
    if not path.exists():
        return
    declared = read_json(path)
    refuse_custom_code(path, declared)
    if declared.get("fast_tokenizer_files"):
        raise SettingsError(
            f"Expected one tokenizer, got fast_tokenizer_files in {path}.",
            hint="The file read would depend on the version of transformers: keep one, as tokenizer.json, and delete "
            "the key.",
        )


def load_feature_extractor(directory: Path) -> Any | None:
    """Load the tool that turns sound into the model's input; None if no file of the folder describes one.

    Raises:
        SettingsError: there is one that cannot be read.
    """
    described = [directory / name for name in EXTRACTORS if (directory / name).is_file()]
    for path in described:
        refuse_custom_code(path, read_json(path))
    if not described:
        return None
    with in_our_words("a feature extractor", directory):
        return AutoFeatureExtractor.from_pretrained(directory, **HERE)


@contextmanager
def in_our_words(expected: str, directory: Path) -> Iterator[None]:
    """Turn whatever a library raises over a model's folder into one refusal; a lack of memory stays what it is.

    Raises:
        SettingsError: something was raised.
    """
    try:
        yield
    except (FedVaultError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each library has its own kinds; all mean that the files are not what they should be
        if "Unrecognized configuration class" in str(error):
            kind = read_json(directory / CONFIG)["model_type"]
            raise SettingsError(
                f"Expected a base model that suits the task, got model type {kind!r}.",
                hint="transformers has no model of that type for this kind of task.",
            ) from None
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise SettingsError(
            f"Expected {expected} in {directory}, got {type(error).__name__}: {reason}",
            hint="A file there is missing, damaged or of another model; copy the model's folder again.",
        ) from error


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
    if getattr(config, "attention_type", None) == SPARSE:
        log.info("attention_type=%r of the base model is switched off: it ends with the first short text.", SPARSE)
        config.attention_type = "original_full"
    if getattr(config, "rescale_every", 0):
        config.rescale_every = 0  # RWKV's first pass would divide its weights, for the sake of half precision
    config.use_cache = False


@lru_cache(maxsize=64)
def _check_form(directory: Path, _unchanged: Unchanged, auto: Any) -> None:
    """Compare the files with the model that a task builds, without reading weights; the same files only once."""
    config = AutoConfig.from_pretrained(directory, **HERE)
    with in_our_words("a base model", directory):
        model, loading = _opened(directory, auto, config, device_map="meta", ignore_mismatched_sizes=True)
    check_keys(model, loading, directory)
    if read_json(directory / CONFIG).get("tie_word_embeddings") is False:
        check_language_head(model, names_of_weights(directory))


def _opened(directory: Path, auto: Any, config: PretrainedConfig, **options: Any) -> tuple[PreTrainedModel, Any]:
    opened: tuple[PreTrainedModel, Any] = auto.from_pretrained(
        directory,
        config=config,
        use_safetensors=True,
        output_loading_info=True,
        **HERE,
        **{"dtype": torch.float32, **options},
    )
    return opened


def _absent_files(tokenizer: PreTrainedTokenizerBase, directory: Path) -> list[str]:
    """Return the files that a tokenizer reads and the folder lacks; a tokenizer of bytes reads none."""
    if (directory / "tokenizer.json").is_file():
        return []
    named = tokenizer.vocab_files_names
    needed = [file for role, file in named.items() if role not in OPTIONAL_TOKENIZER_FILES]
    absent = [file for file in needed or list(named.values()) if not (directory / file).is_file()]
    return ["tokenizer.json", *absent] if absent else []


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
