"""Speech recognition: a recording and its transcript, by an encoder of sound and a decoder of text (Whisper)."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSpeechSeq2Seq, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from shared.base_models.load import load_tokenizer
from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged, text, texts
from shared.study import tasks as declarations
from shared.tasks.audio_classification import sound_processor
from shared.tasks.fit import TARGET_POSITIONS, check_length, check_vocabulary
from shared.tasks.kind import Column, Evidence, Predictor, Rows, TaskKind, random_ids, strings
from shared.tasks.sounds import SoundFormat, cut_positions, encode_sound, sound_format_of, sound_input
from shared.tasks.texts import CHARACTERS_PER_TOKEN, shifted, token_losses, tokenise

UNKNOWN = -1


class Processor(NamedTuple):
    """The two tools that turn recordings and transcripts into arrays."""

    sound_format: SoundFormat
    tokenizer: PreTrainedTokenizerBase


class SpeechRecognition(TaskKind):
    """The kind `speech-recognition`."""

    auto = AutoModelForSpeechSeq2Seq
    peft_task = None
    reads = ("sound",)
    metric, higher_is_better = "wer", False
    columns = (Column("audio", media=True), Column("transcript"))
    sound_format: SoundFormat

    def __init__(self, task: declarations.SpeechRecognition) -> None:
        self.task = task
        self.fills = {"sound": None, "ids": 0, "target": UNKNOWN}
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def processor(self, base_files: BaseModelFiles) -> Processor:
        """Read how the base model wants its recordings, and load its tokenizer."""
        return Processor(sound_processor(base_files, self.task.seconds), load_tokenizer(base_files))

    def check(self, task: declarations.Task, base: PreTrainedModel, base_files: BaseModelFiles) -> None:
        """Refuse a study whose transcripts its base model cannot write."""
        del task
        tokenizer = self.processor(base_files).tokenizer
        check_vocabulary(base, tokenizer)
        check_length(base, "task.max_target_length", self.task.max_target_length, names=TARGET_POSITIONS)
        try:
            begins = len(tokenizer.prefix_tokens)
        except AttributeError:
            begins = 0
        if not 0 < begins < self.task.max_target_length:
            raise SettingsError(
                f"Expected a tokenizer whose transcripts begin with marks, fewer than task.max_target_length="
                f"{self.task.max_target_length}, got {begins}."
            )

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode sound, tokens and the transcript; a row with a bad recording or without words cannot be used."""
        sounds, problems = processor.sound_format.read(rows["audio"])
        transcripts = [cell.strip() for cell in strings(rows["transcript"])]
        most = self.task.max_target_length
        # Whisper writes a space before the first word
        written = tokenise([f" {words}" for words in transcripts], processor.tokenizer, max_length=most)
        plain = [normalised(words[: CHARACTERS_PER_TOKEN * most]) for words in transcripts]
        empty = [Problem(row, "its transcript has no words") for row, words in enumerate(plain) if not words]
        usable = [sound is not None and bool(words) for sound, words in zip(sounds, plain, strict=True)]
        begins = len(processor.tokenizer.prefix_tokens)
        fields = {
            "sound": processor.sound_format.field(sounds),
            "ids": ragged(written.ids, np.int32),
            "target": ragged([[UNKNOWN] * min(begins, len(ids)) + ids[begins:] for ids in written.ids], np.int32),
            "transcript": texts(plain),
        }
        return Encoded(Records(fields, np.array(usable, dtype=bool)), (*problems, *written.problems, *empty))

    def adapt(self, base: nn.Module) -> None:
        """Cut the encoder to the study's seconds."""
        config: Any = base.config
        self.sound_format = sound_format_of(Path(str(base.name_or_path)), config, self.task.seconds)
        self.fixed_tokens = self.sound_format.tokens
        cut_positions(base, self.sound_format.tokens)

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute scores of each next token (records, tokens, vocabulary); padding comes last, so no token reads it."""
        logits: Tensor = base(
            input_features=sound_input(batch, self.sound_format), decoder_input_ids=batch["ids"]
        ).logits
        return logits

    def frozen(self, part: nn.Module, batch: Batch) -> Tensor:
        """Compute the states of the sound at the cut in the encoder."""
        states: Tensor = part(sound_input(batch, self.sound_format)).last_hidden_state
        return states

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy over each record's own tokens."""
        return token_losses(*shifted(outputs, batch["target"]))

    def evidence(self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Write down each recording, always the likeliest token; return it beside the transcript, both normalised."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(model.base_files)
        tokenizer = self._tokenizer
        prompt, end = list(tokenizer.prefix_tokens), int(tokenizer.eos_token_id)
        most = self.task.max_target_length - len(prompt)
        ids = written_ids(model.part_for(batch), sound_input(batch, self.sound_format), prompt, end=end, most=most)
        hypotheses = tokenizer.batch_decode(ids, skip_special_tokens=True)
        references = [text(records["transcript"], i) for i in indices]
        return [(normalised(hypothesis), truth) for hypothesis, truth in zip(hypotheses, references, strict=True)]

    def prediction(self, evidence: Evidence) -> str:
        """Return the text that was written."""
        return str(evidence[0])

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute the word error rate over all words, and the share of records without an error."""
        if not evidence:
            return {"wer": 1.0, "exact_match": 0.0}
        from jiwer import wer

        written, truth = (list(part) for part in zip(*evidence, strict=True))
        exact = sum(a == b for a, b in evidence) / len(evidence)
        return {"wer": float(wer(truth, written)), "exact_match": exact}

    def score(self, evidence: Evidence) -> float:
        """Return 1 less the word error rate, or 0 if there are more errors than words."""
        from jiwer import wer

        written, truth = evidence
        return float(written == truth) if not truth.split() else max(0.0, 1 - float(wer(truth, written)))

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random sound and tokens."""
        ids = random_ids(config, lengths, variant=variant)
        fields = {
            "sound": self.sound_format.synthetic(len(lengths), variant=variant),
            "ids": ragged(ids, np.int32),
            "target": ragged([[UNKNOWN, *tokens[1:]] for tokens in ids], np.int32),
            "transcript": texts([""] * len(lengths)),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always writing the most frequent transcript."""
        seen = Counter(text(part["transcript"], i) for part in train for i in np.flatnonzero(part.usable).tolist())
        guess = min(seen, key=lambda words: (-seen[words], words), default="")
        return [(guess, text(held_out["transcript"], i)) for i in np.flatnonzero(held_out.usable).tolist()]


def normalised(words: str) -> str:
    """Return words in lower case, without punctuation, with one space between: the form in which errors are counted."""
    marks = ["" if mark in "'’" else " " if unicodedata.category(mark)[0] in "PS" else mark for mark in words.lower()]
    return " ".join("".join(marks).split())


def written_ids(base: nn.Module, sound: Tensor, prompt: Sequence[int], *, end: int, most: int) -> list[list[int]]:
    """Write the tokens of each recording, always the likeliest, up to the end mark; return their ids."""
    states = encode_sound(base, sound)
    never, not_first = _suppressed(base, "suppress_tokens"), _suppressed(base, "begin_suppress_tokens")
    fed = torch.tensor([list(prompt)] * len(sound), device=sound.device)
    cache, columns = None, list[Tensor]()
    done = torch.zeros(len(sound), dtype=torch.bool, device=sound.device)
    while len(columns) < most and not done.all():
        out = base(encoder_outputs=states, decoder_input_ids=fed, past_key_values=cache, use_cache=True)
        logits, cache = out.logits[:, -1], out.past_key_values
        logits[:, never if columns else never + not_first] = float("-inf")
        chosen = logits.argmax(-1).masked_fill(done, end)
        columns.append(chosen)
        done, fed = done | (chosen == end), chosen[:, None]
    rows: list[list[int]] = torch.stack(columns, dim=1).cpu().tolist() if columns else [[] for _ in sound]
    return [ids[: ids.index(end)] if end in ids else ids for ids in rows]


def _suppressed(base: nn.Module, name: str) -> list[int]:
    return list(getattr(getattr(base, "generation_config", None), name, None) or [])
