"""Turn texts into token ids, features and losses, each record by itself."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from shared.records.batches import Batch
from shared.records.ragged import Note, Problem
from shared.study.tasks import FEATURE_NORM

CHARACTERS_PER_TOKEN = 100  # longer texts are cut before tokenisation, so that a 2 MB cell costs no more than others


class Tokenised(NamedTuple):
    """Token ids and segments of each record."""

    ids: list[list[int]]
    types: list[list[int]] | None
    """Segment of each token, for models that use it: 0 in the first text, 1 in the second."""
    problems: list[Problem]
    encodings: Sequence[Any] | None = None
    """A fast tokenizer's further output for each record, such as the places of its tokens in the text."""
    unread: Collection[int] = ()
    """Rows whose first text gives no token: of its characters the tokenizer reads none."""


def tokenise(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int, pairs: Sequence[str] | None = None
) -> Tokenised:
    """Turn texts into token ids between the model's own marks, cut at `max_length`."""
    most = CHARACTERS_PER_TOKEN * max_length
    cut = [text[:most] for text in texts]
    if not cut:
        return Tokenised([], None, [])
    second = [text[:most] for text in pairs] if pairs is not None else None
    encoded = tokenizer(cut, second, truncation=True, max_length=max_length, return_attention_mask=False)
    types = encoded.get("token_type_ids") if pairs is not None else None
    records = list(zip(texts, pairs, strict=True)) if pairs is not None else [(text,) for text in texts]
    problems = _unknown_notes(encoded, tokenizer)
    for row, parts in enumerate(records):
        shown, longest = [part[:most] for part in parts], max(map(len, parts))
        covered = _characters_read(encoded, row, shown, tokenizer, max_length)
        if covered is None and longest <= most:
            continue
        characters_read = sum(map(len, shown)) if covered is None else covered
        reason = f"a text of {longest} characters was cut to its first {most}" if longest > most else ""
        problems.append(Problem(row, cut_note(sum(map(len, parts)), characters_read, max_length, reason)))
    unread = _unread(encoded, tokenizer, pair=pairs is not None)
    return Tokenised([ids or [0] for ids in encoded["input_ids"]], types, problems, encoded.encodings, unread)


def nothing_to_read(texts: Sequence[str], tokenised: Tokenised, *, name: str = "text") -> dict[int, str]:
    """Return the reason, by row, why some records cannot be used: their text is empty, or gives no token."""
    empty = {row: f"its {name} is empty" for row, text in enumerate(texts) if not text.strip()}
    return dict.fromkeys(tokenised.unread, f"its {name} holds no character that the tokenizer reads") | empty


def cut_note(characters: int, characters_read: int, max_length: int, reason: str = "", *, texts: str = "texts") -> Note:
    """Return the note on a text of which only the first characters are read."""
    return Note(
        reason or f"only {characters_read} of its {characters} characters fit into {max_length} tokens",
        kind=f"records have {texts} of more than {max_length} tokens, and are cut at their ends",
        left_out=characters - characters_read,
        of=characters,
    )


def _unread(encoded: Any, tokenizer: PreTrainedTokenizerBase, *, pair: bool) -> frozenset[int]:
    """Return the rows whose first text gives no token beside the model's own marks."""
    if encoded.encodings is not None:
        return frozenset(row for row, one in enumerate(encoded.encodings) if 0 not in one.sequence_ids)
    # a tokenizer written in Python does not say which text a token is of
    marks = tokenizer.num_special_tokens_to_add(pair=pair)
    return frozenset(row for row, ids in enumerate(encoded["input_ids"]) if len(ids) <= marks)


def _unknown_notes(encoded: Any, tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    """Return a note on each record whose texts give tokens, all of them the one that stands for what is unknown."""
    unknown, marks = tokenizer.unk_token_id, set(tokenizer.all_special_ids)
    note = Note("the tokenizer knows none of its tokens", kind="texts have no token that the tokenizer knows")
    problems = []
    for row, ids in enumerate(encoded["input_ids"]):
        if unknown not in ids:
            continue
        if encoded.encodings is not None:
            numbers = encoded.encodings[row].sequence_ids
            own = {token for token, number in zip(ids, numbers, strict=True) if number is not None}
        else:
            own = {token for token in ids if token == unknown or token not in marks}
        if own == {unknown}:
            problems.append(Problem(row, note))
    return problems


def _characters_read(
    encoded: Any, row: int, parts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> int | None:
    """Return how many characters of a record's texts its tokens cover; None if nothing was cut off."""
    if encoded.encodings is not None:
        one = encoded.encodings[row]
        if not one.overflowing:
            return None
        ends = [0] * len(parts)
        for number, (_, end) in zip(one.sequence_ids, one.offsets, strict=True):
            if number is not None:
                ends[number] = max(ends[number], end)
        return sum(ends)
    if len(encoded["input_ids"][row]) < max_length:
        return None
    # a tokenizer written in Python does not say what it left out
    tokens = len(tokenizer(*parts, verbose=False)["input_ids"])
    return sum(map(len, parts)) * max_length // tokens if tokens > max_length else None


def mean_features(states: Tensor, batch: Batch) -> Tensor:
    """Average over real tokens and scale to length 4: (records, tokens, width) to (records, width).

    The mean replaces an encoder's own pooler, which is often untrained (MiniLM's is). Equal lengths keep gradients
    comparable, which helps under clipping: at ε = 3 the pooler lost 35 points in one trial, and the mean lost none.
    """
    mask = batch.get("mask")
    if mask is None:
        return FEATURE_NORM * F.normalize(states.mean(1), dim=-1)
    weights = mask.to(states.dtype).unsqueeze(-1)
    mean = (states * weights).sum(1) / weights.sum(1)
    return FEATURE_NORM * F.normalize(mean, dim=-1)


def token_features(states: Tensor) -> Tensor:
    """Scale each token's state to length 4, as equal lengths help under clipping."""
    return FEATURE_NORM * F.normalize(states, dim=-1)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy over each record's own labelled tokens (records,); 0 for a record without any.

    Hugging Face's built-in loss averages over the tokens of the whole batch, which would let one record's length change
    another's gradient.
    """
    counted = (targets >= 0).sum(1)
    return each_token_loss(logits, targets).sum(1) / counted.clamp(min=1)


def each_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of every token (records, tokens); 0 where the target is -1.

    Tokens are rows: with a vocabulary as the second of three dimensions, it takes more than twice as long.
    """
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-1)
    return each.view(targets.shape)


def shifted(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Align the prediction after each token with the token that follows; none follows the last one.

    The targets move, because moving the logits would copy them.
    """
    return logits, F.pad(targets[:, 1:], (0, 1), value=-1)
