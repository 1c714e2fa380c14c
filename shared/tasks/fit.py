"""Compare what a study declares with what its base model takes: public, and before anything is paid for.

Whatever is refused here would make records fail, or be read wrongly, in every round: a question about records that the
server could choose by choosing the study.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shared.errors import FedVaultError, SettingsError
from shared.records.batches import LENGTH_STEP, padded_length
from shared.records.ragged import Encoded

POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings")
TARGET_POSITIONS = ("max_target_positions", "max_decoder_position_embeddings", "max_position_embeddings")
"""Names in a configuration for the tokens that a model reads, or writes. A model with relative positions has none."""


def check_length(base: PreTrainedModel, setting: str, tokens: int, *, names: tuple[str, ...] = POSITIONS) -> None:
    """Refuse a record length, once padded, beyond a model's positions.

    Args:
        base: the base model, with weights or without.
        setting: name of the length in the study, as in `task.max_length`.
        tokens: its value.
        names: of the positions in the configuration.

    Raises:
        SettingsError: the model has fewer positions.
    """
    positions = _positions(base, names)
    if positions is not None and padded_length(tokens) > positions:
        most = positions // LENGTH_STEP * LENGTH_STEP
        raise SettingsError(
            f"Expected {setting} of at most {most} for this base model, got {tokens}.",
            hint=f"It has {positions} positions, and lengths are rounded up to multiples of {LENGTH_STEP}.",
        )


def check_vocabulary(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that knows tokens which the model does not.

    Raises:
        SettingsError: it does.
    """
    highest = max(tokenizer.get_vocab().values(), default=0)
    try:
        tables = (base.get_input_embeddings(), base.get_output_embeddings())
    except NotImplementedError:
        raise SettingsError(
            f"Expected a base model with one embedding for each token, got model type {base.config.model_type!r}.",
            hint="Whether it has one for every token of its tokenizer cannot be told. Choose another base model.",
        ) from None
    rows = min(len(weight) for table in tables if (weight := getattr(table, "weight", None)) is not None)
    if highest >= rows:
        raise SettingsError(
            f"Expected a tokenizer for the base model's {rows} tokens, got one with token {highest}.",
            hint="Tokenizer and weights in the model's folder do not belong together.",
        )


def check_example(base: PreTrainedModel, encode: Callable[[], Encoded]) -> None:
    """Refuse a tokenizer that cannot encode even a public example, or marks more segments in it than the model knows.

    Raises:
        SettingsError: it is such a tokenizer, or lacks what the task kind needs.
    """
    try:
        example = encode().records
    except FedVaultError:
        raise
    except Exception as error:  # tokenizers have no error kinds of their own
        raise SettingsError(
            f"Expected a tokenizer that can encode the text 'a', got {type(error).__name__}.",
            hint="The model's folder needs tokenizer.json, or the files that its tokenizer reads.",
        ) from error
    known = int(getattr(base.config, "type_vocab_size", 1))
    marked = int(example["types"].values.max(initial=0)) + 1 if "types" in example.fields else 1
    if known > 1 and marked > known:
        raise SettingsError(f"Expected a tokenizer for the base model's {known} segments, got one with {marked}.")


def lengths_of(task: Any) -> Mapping[str, int]:
    """Return the declared record lengths of a task and its parts, by the name that a study has for each."""
    parts = {"task": task} | {f"task.tasks.{name}": part for name, part in getattr(task, "tasks", {}).items()}
    return {f"{place}.max_length": part.max_length for place, part in parts.items() if hasattr(part, "max_length")}


def _positions(base: PreTrainedModel, names: tuple[str, ...]) -> int | None:
    """Return how many tokens have a position; None if any number does."""
    config = base.config.get_text_config()
    declared = next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
    # -1 stands for no limit in some configurations
    return None if declared is None or declared < 0 else declared - _first_position(base)


def _first_position(base: PreTrainedModel) -> int:
    """Return the position of the first token: RoBERTa and its kin count from behind that of padding."""
    tables = [module for name, module in base.named_modules() if name.rpartition(".")[2] == "position_embeddings"]
    padded = [t.padding_idx for t in tables if isinstance(t, nn.Embedding) and t.padding_idx is not None]
    return padded[0] + 1 if padded else 0
