"""Sequence to sequence: a source text and its target, such as a translation or a summary; with the model's own head."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import TaskType
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shared.base_models.load import load_tokenizer
from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged, text, texts
from shared.study import tasks as declarations
from shared.tasks.fit import TARGET_POSITIONS, check_length
from shared.tasks.kind import Column, Evidence, Predictor, Rows, TaskKind, attention, random_ids, strings
from shared.tasks.text_overlap import chrf, rouge_l
from shared.tasks.texts import CHARACTERS_PER_TOKEN, cut_note, nothing_to_read, token_losses, tokenise

IGNORED = -1  # no token: what `token_losses` leaves out
LARGEST_LOSS = 20.0  # nats per token; worse than guessing among any vocabulary


class SequenceToSequence(TaskKind):
    """The kind `seq2seq`."""

    auto = AutoModelForSeq2SeqLM
    peft_task = TaskType.SEQ_2_SEQ_LM
    reads = ("ids",)
    columns = (Column("source"), Column("target"))

    def __init__(self, task: declarations.SequenceToSequence) -> None:
        self.task = task
        self.metric, self.higher_is_better = ("rouge_l" if task.metric == "rouge" else "chrf"), True
        self.fills = {"ids": 0, "target": IGNORED}

    def check(self, task: declarations.Task, base: PreTrainedModel, base_files: BaseModelFiles) -> None:
        """Refuse a study whose lengths or tokens its base model does not have."""
        super().check(task, base, base_files)
        check_length(base, "task.max_target_length", self.task.max_target_length, names=TARGET_POSITIONS)
        start_token(base.config)

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode source and target as token ids, and keep the target; a row without one of them cannot be used."""
        sources, targets = strings(rows["source"]), strings(rows["target"])
        tokenised = tokenise(
            [self.task.prefix + source for source in sources], processor, max_length=self.task.max_length
        )
        most = CHARACTERS_PER_TOKEN * self.task.max_target_length
        longest = self.task.max_target_length
        learned = [_target_ids(processor, target[:most], longest) for target in targets]
        problems, usable = list(tokenised.problems), list[bool]()
        reasons = nothing_to_read(sources, tokenised, name="source")
        for row, target in enumerate(targets):
            if (characters_read := learned[row].characters_read) < len(target):
                problems.append(Problem(row, cut_note(len(target), characters_read, longest, texts="targets")))
            if not target.strip():
                reasons.setdefault(row, "its target is empty")
            if row in reasons:
                problems.append(Problem(row, reasons[row]))
            usable.append(row not in reasons)
        fields = {
            "ids": ragged(tokenised.ids, np.int32),
            "target": ragged([target.ids for target in learned], np.int32),
            "reference": texts([target[:most] for target in targets]),
        }
        return Encoded(Records(fields, np.array(usable, dtype=bool)), tuple(problems))

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute scores of each target token, given the true ones before it (records, tokens, vocabulary)."""
        scores: Tensor = base(
            **_source(batch),
            attention_mask=attention(batch),
            decoder_input_ids=_one_later(batch["target"], start_token(base.config)),
            use_cache=False,
        ).logits
        return scores

    def frozen(self, part: nn.Module, batch: Batch) -> Tensor:
        """Compute the states of the source at the cut in the encoder."""
        states: Tensor = part(input_ids=batch["ids"], attention_mask=attention(batch)).last_hidden_state
        return states

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy over each record's own target."""
        return token_losses(outputs, batch["target"])

    def evidence(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return the text that the model writes, the true one, and the loss of the true one."""
        written = self.predict(model, batch, records, indices)
        losses = model.losses(batch).double().tolist()
        true = [text(records["reference"], index) for index in indices]
        return list(zip(written, true, losses, strict=True))

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute ROUGE-L averaged over the records, or chrF over all of them, and the mean loss per record."""
        written, true, losses = zip(*evidence, strict=True) if evidence else ((), (), ())
        mean_rouge = sum(map(rouge_l, written, true)) / max(1, len(written))
        quality = chrf(written, true) if self.task.metric == "chrf" else mean_rouge
        finite = [loss if math.isfinite(loss) else LARGEST_LOSS for loss in losses] or [LARGEST_LOSS]
        return {self.metric: quality, "loss": sum(finite) / len(finite)}

    def score(self, evidence: Evidence) -> float:
        """Return ROUGE-L or chrF of what was written."""
        written, true, _ = evidence
        return chrf([written], [true]) / 100 if self.task.metric == "chrf" else rouge_l(written, true)

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens for source and target."""
        targets = [length // 2 + 1 for length in lengths]
        fields = {
            "ids": ragged(random_ids(config, lengths, variant=variant), np.int32),
            "target": ragged(random_ids(config, targets, variant=variant, seed=23), np.int32),
            "reference": texts([""] * len(lengths)),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def predict(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Any]:
        """Write the target of each record, always with the likeliest token."""
        del records, indices
        tokenizer, config = _tokenizer(model.base_files), model.config
        with torch.no_grad():
            ids = model.part_for(batch).generate(  # type: ignore[operator]
                **_source(batch),
                attention_mask=batch["mask"],
                max_new_tokens=self.task.max_target_length,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                decoder_start_token_id=start_token(config),
            )
        written: list[Any] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return written


def start_token(config: PretrainedConfig) -> int:
    """Return the token that the decoder reads before the first token of a target.

    Raises:
        SettingsError: the model names none.
    """
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        token = getattr(config, name, None)
        if isinstance(token, int):
            return token
    raise SettingsError(f"Expected a model with a decoder_start_token_id, got a {config.model_type} without.")


def _source(batch: Batch) -> dict[str, Tensor]:
    """Return the encoder's input: token ids, or the states at a cut."""
    return {"inputs_embeds": batch["states"]} if "states" in batch else {"input_ids": batch["ids"]}


def _one_later(targets: Tensor, start: int) -> Tensor:
    """Return the decoder's input: the true tokens, one place later. Padding comes last, so no token reads it."""
    shifted = torch.cat([torch.full_like(targets[:, :1], start), targets[:, :-1]], dim=1)
    return shifted.clamp(min=0)


class Target(NamedTuple):
    """A target as it is learned."""

    ids: list[int]
    characters_read: int
    """About as many as its tokens stand for, where it was cut."""


def _target_ids(tokenizer: PreTrainedTokenizerBase, target: str, max_length: int) -> Target:
    """Return the token ids of a target with the end token, which is learned even if the text was cut."""
    untruncated: list[int] = tokenizer(text_target=target, verbose=False)["input_ids"]
    if len(untruncated) <= max_length:
        return Target(_ended(tokenizer, untruncated, max_length), len(target))
    ids: list[int] = tokenizer(text_target=target, truncation=True, max_length=max_length)["input_ids"]
    return Target(_ended(tokenizer, ids, max_length), len(target) * max_length // len(untruncated))


def _ended(tokenizer: PreTrainedTokenizerBase, ids: list[int], max_length: int) -> list[int]:
    end = tokenizer.eos_token_id
    if isinstance(end, int) and end not in ids[-1:]:
        ids = [*ids[: max_length - 1], end]
    return ids or [0]


@lru_cache(maxsize=2)
def _tokenizer(base_files: BaseModelFiles) -> PreTrainedTokenizerBase:
    return load_tokenizer(base_files)
