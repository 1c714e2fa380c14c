"""Causal language modelling: texts, or prompts with responses, by the base model's own head.

One record is one training sequence: nothing is packed, split or joined. A text that ends within `max_length` is
followed by the model's end token, which is learned, too; a text that was cut has no end to learn.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import TaskType
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Note, Problem, Ragged, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Evidence, OutputKind, Predictor, Rows, attention, random_ids, strings
from shared.tasks.texts import CHARACTERS_PER_TOKEN, cut_note, each_token_loss, shifted, token_losses

LARGEST_LOSS = 20.0  # nats per token; keeps perplexity finite, and is worse than guessing among any vocabulary
IGNORED = -1  # not a token: `token_losses` leaves it out
ENCODERS = frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
"""Model types that fill in masked tokens; some have a class for decoding too, which masks nothing by itself."""
RESPONSE_ON_NEW_LINE = "\n"
"""Text between prompt and response; users of a finished model append it to the prompt."""


class Sequences(NamedTuple):
    """The tokens of one row."""

    given: list[int]
    """Tokens that are only read; the others are learned."""
    learned: list[int]


class CausalLanguageModel(OutputKind):
    """The kind `causal-lm`."""

    auto = AutoModelForCausalLM
    peft_task = TaskType.CAUSAL_LM
    metric, higher_is_better = "perplexity", False
    answers = ("response",)

    def __init__(self, task: declarations.CausalLanguageModel) -> None:
        self.task = task
        self.text_alone = task.form == "text"
        self.columns = (Column("text"),) if self.text_alone else (Column("prompt"), Column("response"))
        self.fills = {"ids": 0, "target": IGNORED}

    def check(self, task: declarations.Task, base: PreTrainedModel, base_files: BaseModelFiles) -> None:
        """Refuse encoders as well: they read the tokens that they are to foretell.

        Raises:
            SettingsError: the base model is one, or does not suit the study.
        """
        super().check(task, base, base_files)
        reads_ahead = base.config.model_type in ENCODERS and not getattr(base.config, "is_decoder", False)
        if reads_ahead and not getattr(base.config, "causal", False):
            raise SettingsError(
                f"Expected a decoder, got model type {base.config.model_type!r}, which reads what it is to foretell.",
                hint="Choose task.kind = 'masked-lm', or a decoder: those of this type have is_decoder in config.json.",
            )

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode token ids and the place where learning begins; a row with nothing to learn cannot be used."""
        columns = [strings(rows[column.name]) for column in self.columns]
        most = CHARACTERS_PER_TOKEN * self.task.max_length
        ids, starts, usable, problems = list[list[int]](), list[int](), list[bool](), list[Problem]()
        for row, cells in enumerate(zip(*columns, strict=True)):
            given, learned = self._sequences([cell[:most] for cell in cells], processor)
            reason = self._reason(cells, given, learned)
            if reason:
                problems.append(Problem(row, reason))
            note = self._cut(cells, len(given) + len(learned), most)
            if note and (not reason or max(map(len, cells)) > most):
                problems.append(Problem(row, note))
            usable.append(not reason)
            ids.append((given + learned)[: self.task.max_length] or [0])
            starts.append(min(len(given), self.task.max_length))
        return Encoded(Records(_fields(ids, starts), np.array(usable, dtype=bool)), tuple(problems))

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute the scores of every next token (records, tokens, vocabulary)."""
        read = {"inputs_embeds": batch["states"]} if "states" in batch else {"input_ids": batch["ids"]}
        scores: Tensor = base(attention_mask=attention(batch), use_cache=False, **read).logits
        return scores

    def frozen(self, part: nn.Module, batch: Batch) -> Tensor:
        """Compute the states at the cut; the language head stays above."""
        states: Tensor = part(
            input_ids=batch["ids"], attention_mask=attention(batch), use_cache=False
        ).last_hidden_state
        return states

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy over each record's own learned tokens."""
        return token_losses(*shifted(outputs, batch["target"]))

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return for each record's learned tokens the sum of losses, how many were foreseen, and how many there are."""
        del records, indices
        scores, targets = shifted(outputs, batch["target"])
        each = each_token_loss(scores, targets)
        foreseen = ((scores.argmax(2) == targets) & (targets >= 0)).sum(1)
        sums, counts = each.double().sum(1), (targets >= 0).sum(1)
        return list(zip(sums.tolist(), foreseen.tolist(), counts.tolist(), strict=True))

    def prediction(self, evidence: Evidence) -> None:
        """Return nothing: evidence counts tokens that were foreseen."""

    def truth(self, evidence: Evidence) -> None:
        """Return nothing, likewise."""

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute the perplexity per token, cut off at e to the 20th, and the share of foreseen tokens."""
        sums, foreseen, counts = (sum(part) for part in zip(*evidence, strict=True)) if evidence else (0.0, 0, 0)
        loss = sums / counts if counts else math.inf
        finite = min(loss, LARGEST_LOSS) if loss == loss else LARGEST_LOSS
        return {"perplexity": math.exp(finite), "token_accuracy": foreseen / max(1, counts)}

    def score(self, evidence: Evidence) -> float:
        """Return the share of learned tokens that were foreseen."""
        _, foreseen, count = evidence
        return float(foreseen / max(1, count))

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens, with responses of many lengths; `variant` changes the first one."""
        starts = [0 if self.text_alone else length // 2 for length in lengths]
        starts[0] += variant
        return Records(_fields(random_ids(config, lengths, variant=variant), starts), np.ones(len(lengths), dtype=bool))

    def predict(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Any]:
        """Continue each prompt, or each text, up to `max_length` tokens in all."""
        del batch
        tokenizer = self.processor(model.base_files)
        return [self._continued(model, tokenizer, records, index) for index in indices]

    def _continued(self, model: Predictor, tokenizer: PreTrainedTokenizerBase, records: Records, index: int) -> str:
        ids, start = records["ids"][index], int(records["start"][index][0])
        given = _without_end(ids.tolist(), tokenizer) if self.text_alone else ids[:start].tolist()
        prompt = torch.tensor([given or [end_token(tokenizer)]], device=next(model.base.parameters()).device)
        room = max(1, self.task.max_length - prompt.shape[1])
        continued = generate(model.base, prompt, tokenizer, max_new_tokens=room)
        text: str = tokenizer.decode(continued[0, prompt.shape[1] :], skip_special_tokens=True)
        return text

    def _sequences(self, cells: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Sequences:
        if self.text_alone:
            return Sequences([], with_end(tokens(tokenizer, cells[0], marks=True), tokenizer))
        prompt, response = cells
        if self.task.form == "chat":
            return _chat(prompt, response, tokenizer)
        given = tokens(tokenizer, prompt + RESPONSE_ON_NEW_LINE, marks=True)
        return Sequences(_without_end(given, tokenizer), with_end(tokens(tokenizer, response), tokenizer))

    def _cut(self, cells: Sequence[str], tokens: int, most: int) -> Note | None:
        """Return the note on a record with a cell of more than `most` characters, or more tokens than are read."""
        longest, characters, length = max(map(len, cells)), sum(map(len, cells)), self.task.max_length
        if longest <= most and tokens <= length:
            return None
        read = sum(min(len(cell), most) for cell in cells) * min(length, tokens) // max(1, tokens)
        reason = f"a text of {longest} characters was cut to its first {most}" if longest > most else ""
        return cut_note(characters, read, length, reason)

    def _reason(self, cells: Sequence[str], given: Sequence[int], learned: Sequence[int]) -> str:
        """Return the reason why a row cannot be used; empty if it can."""
        for column, cell in zip(self.columns, cells, strict=True):
            if not cell.strip():
                return f"its {column.name} is empty"
        if len(given) >= self.task.max_length:
            return f"its prompt alone fills task.max_length={self.task.max_length}"
        return "" if len(given) + len(learned) > 1 else "it is too short to learn from"


def tokens(tokenizer: PreTrainedTokenizerBase, text: str, *, marks: bool = False) -> list[int]:
    """Return the token ids of a text, with or without the model's own marks around it."""
    ids: list[int] = tokenizer(text, add_special_tokens=marks, verbose=False)["input_ids"]
    return ids


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a text.

    Raises:
        SettingsError: the tokenizer has none, so a model could not learn to stop.
    """
    token = tokenizer.eos_token_id
    if not isinstance(token, int):
        raise SettingsError("Expected a base model whose tokenizer has an end token, got one without eos_token.")
    return token


def with_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return token ids with exactly one end token behind them."""
    return [*_without_end(ids, tokenizer), end_token(tokenizer)]


def generate(base: nn.Module, ids: Tensor, tokenizer: PreTrainedTokenizerBase, *, max_new_tokens: int) -> Tensor:
    """Continue prompts of one length (records, tokens), always with the likeliest token."""
    end = end_token(tokenizer)
    with torch.no_grad():
        continued: Tensor = base.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=end,
            pad_token_id=end,
        )
    return continued


def _without_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    end = end_token(tokenizer)
    return ids[:-1] if ids and ids[-1] == end else ids


def _chat(prompt: str, response: str, tokenizer: PreTrainedTokenizerBase) -> Sequences:
    """Return one question and its answer in the model's own chat template.

    Raises:
        SettingsError: the tokenizer has no chat template, or one that changes the question once it has an answer.
    """
    if not tokenizer.chat_template:
        raise SettingsError(
            "Expected a base model with a chat template for task.form='chat', got one without.",
            hint="Use task.form = 'prompt-response'.",
        )
    question, answer = {"role": "user", "content": prompt}, {"role": "assistant", "content": response}
    opening: Any = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    turn: Any = tokenizer.apply_chat_template([question, answer], tokenize=False)
    if not turn.startswith(opening):
        raise SettingsError("Expected a chat template that only adds the answer to the question, got another one.")
    learned, end = tokens(tokenizer, turn[len(opening) :]), end_token(tokenizer)
    if end in learned:  # the template may append a line break, which is never generated
        learned = learned[: len(learned) - learned[::-1].index(end)]
    return Sequences(tokens(tokenizer, opening), with_end(learned, tokenizer))


def _fields(ids: Sequence[list[int]], starts: Sequence[int]) -> dict[str, Ragged]:
    """Return the fields of records: token ids, targets (-1 for tokens that are only read), first learned place."""
    learned = [[IGNORED] * start + tokens[start:] for tokens, start in zip(ids, starts, strict=True)]
    return {"ids": ragged(ids, np.int32), "target": ragged(learned, np.int32), "start": ragged(starts, np.int64)}
