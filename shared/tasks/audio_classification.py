"""Audio classification: one recording, one label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.base_models.load import read_config
from shared.base_models.locate import BaseModelFiles
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Rows, strings
from shared.tasks.single_label import OneLabelKind, mean_of_tokens
from shared.tasks.sounds import SoundFormat, cut_positions, encode_sound, sound_format_of, sound_input


class AudioClassification(OneLabelKind):
    """The kind `audio-classification`."""

    columns = (Column("audio", media=True), Column("label"))
    reads = ("sound",)
    sound_format: SoundFormat

    def __init__(self, task: declarations.AudioClassification) -> None:
        super().__init__(task.labels)
        self.task = task
        self.fills = {"sound": None, "target": None}

    def processor(self, base_files: BaseModelFiles) -> SoundFormat:
        """Read how the base model wants its recordings."""
        return sound_processor(base_files, self.task.seconds)

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode sound and label; a row with a missing or broken recording or an unknown label cannot be used."""
        sounds, problems = processor.read(rows["audio"])
        targets, unknown = self.targets(strings(rows["label"]))
        usable = [sound is not None and target >= 0 for sound, target in zip(sounds, targets, strict=True)]
        fields = {"sound": processor.field(sounds), "target": ragged(targets, np.int64)}
        return Encoded(Records(fields, np.array(usable, dtype=bool)), (*problems, *unknown))

    def adapt(self, base: nn.Module) -> None:
        """Cut a Whisper to the part of its encoder that reads the study's seconds; its decoder is not needed."""
        config: Any = base.config
        self.sound_format = sound_format_of(Path(str(base.name_or_path)), config, self.task.seconds)
        self.fixed_tokens = self.sound_format.tokens
        if config.is_encoder_decoder:
            base.decoder = nn.Identity()
            cut_positions(base, self.sound_format.tokens)

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute the states of the sound (records, tokens, width)."""
        states: Tensor = encode_sound(base, sound_input(batch, self.sound_format)).last_hidden_state
        return states

    def frozen(self, part: nn.Module, batch: Batch) -> Tensor:
        """Compute the states of the sound at the cut."""
        states: Tensor = part(sound_input(batch, self.sound_format)).last_hidden_state
        return states

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Average over time, scaled to one length."""
        del batch
        return mean_of_tokens(states)

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random sound, with labels in turn."""
        del config
        targets = [self.goal.synthetic(n + (variant if n == 0 else 0)) for n in range(len(lengths))]
        fields = {
            "sound": self.sound_format.synthetic(len(lengths), variant=variant),
            "target": ragged(targets, np.int64),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))


def sound_processor(base_files: BaseModelFiles, seconds: float) -> SoundFormat:
    """Read how the base model in this folder wants recordings of this length."""
    config = read_config(base_files)
    return sound_format_of(base_files.directory, config, seconds)
