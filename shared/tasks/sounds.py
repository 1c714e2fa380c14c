"""Turn the bytes of recordings into the input of a speech model, each by itself and all of one length.

Whisper's encoder always reads 30 seconds. Here its positions are cut to the seconds that a study declares, so that a
clip of one second costs one second.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.base_models.load import load_feature_extractor
from shared.base_models.model_folder import PREPROCESSOR
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Note, Problem, Ragged, ragged
from shared.tasks.images import MediaError, file_of
from shared.tasks.kind import Cell

RATES = (1_000, 768_000)
MOST_CHANNELS = 16
MOST_VALUES_PER_S = 2_000_000
"""Of all channels together; 30 seconds of it are 240 MB. A small file can hold hours of silence at any rate."""
MOST_FACTOR = 10_000
"""Rates are exact up to this denominator of their ratio: between two large primes a filter would fill the memory."""
HOPS_PER_POSITION = 2  # Whisper's second convolution halves the frames
UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # in the header of a WAV file that was streamed
UNKNOWN_FRAMES = 1 << 62
"""A recording that was streamed may not tell its length; libsndfile then names the largest number that it has."""
PADDING_S = 0.05
"""Formats and Whisper's positions round a length by less than this: a recording so much longer is not called cut."""
MOST_LOUD = 2.0
"""Fractions may overshoot 1 a little; more are whole numbers stored as fractions, and would all be cut off at 1."""
SILENCE = 1e-4
"""Three steps of 16 bits: what is left where two channels cancel each other out."""

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class SoundFormat:
    """Rate, length and form of the recordings that a base model reads."""

    extractor: Any
    """The model's own feature extractor: a spectrogram, or a waveform of mean 0 and variance 1."""
    samples: int
    """Samples read from each recording, at the model's rate."""
    shape: tuple[int, ...]
    """Shape of the model's input for one recording."""
    tokens: int
    """Number of states that the model computes for one recording."""

    @property
    def rate(self) -> int:
        """Samples per second."""
        return int(self.extractor.sampling_rate)

    def input_of(self, waveform: Waveform) -> NDArray[np.float16]:
        """Return the flat input (product of `shape`) for a waveform; silence follows a short one, a long one is cut."""
        padded = np.zeros(self.samples, np.float32)
        padded[: len(waveform)] = waveform[: self.samples]
        return _extracted(self.extractor, padded).astype(np.float16).ravel()

    def shaped(self, sound: Tensor) -> Tensor:
        """Shape stored inputs (records, entries) as the model reads them."""
        return sound.view(-1, *self.shape)

    def read(self, cells: Sequence[Cell]) -> tuple[list[NDArray[np.float16] | None], list[Problem]]:
        """Return the input for each recording, None for one that cannot be used, and the problems."""
        sounds: list[NDArray[np.float16] | None] = []
        problems = []
        for row, cell in enumerate(cells):
            try:
                content = file_of(cell)
                sound = waveform(content, self.rate, most_samples=self.samples)
                sounds.append(self.input_of(sound))
                notes = recording_notes(content, sound, seconds=self.samples / self.rate)
                problems += [Problem(row, note) for note in notes]
            except MediaError as error:
                sounds.append(None)
                problems.append(Problem(row, f"its recording {error}"))
        return sounds, problems

    def field(self, sounds: Sequence[NDArray[np.float16] | None]) -> Ragged:
        """Pack the inputs of recordings; a missing recording becomes zeros."""
        nothing = np.zeros(int(np.prod(self.shape)), np.float16)
        return ragged([nothing if sound is None else sound for sound in sounds], np.float16)

    def synthetic(self, records: int, *, variant: int, seed: int = 23) -> Ragged:
        """Draw inputs from a public generator; `variant` changes that of the first record."""
        seeds = [[seed, n] if n or not variant else [seed, 0, variant] for n in range(records)]
        size = int(np.prod(self.shape))
        return ragged([np.random.default_rng(each).standard_normal(size) for each in seeds], np.float16)


def sound_format_of(directory: Path, config: PretrainedConfig, seconds: float) -> SoundFormat:
    """Read from a base model's folder how it wants recordings of this length.

    Raises:
        SettingsError: the folder does not tell, or a recording is too short for a single state.
    """
    extractor: Any = load_feature_extractor(directory)
    rate = getattr(extractor, "sampling_rate", None)
    if rate is None:
        raise SettingsError(
            f"Expected a base model that reads sound, got {config.model_type!r} without a feature extractor.",
            hint=f"Its folder needs a {PREPROCESSOR} that names one.",
        )
    if not isinstance(rate, int) or rate < 1:
        raise SettingsError(
            f"Expected sampling_rate as a whole number of Hz in {PREPROCESSOR}, got sampling_rate={rate!r}.",
            hint="Write it as a number without quotes or decimals, such as 16000.",
        )
    positions = getattr(config, "max_source_positions", None)
    _refuse_other_forms(config, extractor, positions)
    if positions is not None:
        per_position = int(extractor.hop_length) * HOPS_PER_POSITION
        tokens = round(seconds * rate / per_position)
        samples = tokens * per_position
        if tokens > int(positions):
            most = int(positions) * per_position / rate
            raise SettingsError(
                f"Expected task.seconds of at most {most:g} for this base model, got {seconds:g}.",
                hint=f"It has {positions} positions.",
            )
    else:
        samples = tokens = round(seconds * rate)
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            tokens = max(0, (tokens - kernel) // stride + 1)
    if tokens < 1:
        raise SettingsError(
            f"Expected task.seconds long enough for one state of the model, got seconds={seconds:g}.",
            hint="Set task.seconds to the usual length of the recordings.",
        )
    shape = _extracted(extractor, np.zeros(samples, np.float32)).shape
    expected = (samples,) if positions is None else (config.num_mel_bins, tokens * HOPS_PER_POSITION)
    if shape != expected or not RATES[0] <= rate <= RATES[1]:
        raise SettingsError(
            f"Expected a feature extractor that gives the base model {expected} numbers, got {shape} at {rate} Hz.",
            hint=f"{PREPROCESSOR} and the weights in the model's folder do not belong together.",
        )
    return SoundFormat(extractor, samples, shape, tokens)


def _refuse_other_forms(config: PretrainedConfig, extractor: Any, positions: int | None) -> None:
    """Refuse a model that reads sound in neither of the two forms that are known here.

    Raises:
        SettingsError: it reads no waveforms as Wav2Vec2 does, and no spectrograms as Whisper does.
    """
    spectrograms = positions is not None and hasattr(extractor, "hop_length") and hasattr(config, "num_mel_bins")
    waveforms = positions is None and hasattr(config, "conv_kernel") and hasattr(config, "conv_stride")
    if not spectrograms and not waveforms:
        raise SettingsError(
            f"Expected a base model that reads sound as Wav2Vec2 or Whisper do, got model type {config.model_type!r} "
            f"with a {type(extractor).__name__}.",
            hint="HuBERT, UniSpeech, Data2Vec and SEW read it as Wav2Vec2 does.",
        )


def cut_positions(model: Any, tokens: int) -> None:
    """Cut a Whisper encoder to its first positions, in place."""
    encoder = model.get_encoder()
    positions: nn.Embedding = encoder.embed_positions
    with torch.no_grad():
        first = positions.weight[:tokens].clone()
    positions.weight = nn.Parameter(first, requires_grad=False)
    positions.num_embeddings = encoder.max_source_positions = model.config.max_source_positions = tokens


def sound_input(batch: Batch, sound_format: SoundFormat) -> Tensor:
    """Return the model's input: sound in its form, or the states at a cut."""
    return batch["states"] if "states" in batch else sound_format.shaped(batch["sound"])


def encode_sound(base: Any, sound: Tensor) -> Any:
    """Run a model's encoder on sound, with or without an adapter around it."""
    return base.get_encoder()(sound) if base.config.is_encoder_decoder else base(sound)


def waveform(cell: Cell, rate: int, *, most_samples: int) -> Waveform:
    """Read the start of a recording, mixed to one channel, at this rate.

    Args:
        cell: bytes of a WAV, FLAC, OGG or MP3 file, or the file's name.
        rate: wanted samples per second.
        most_samples: the most samples to return; no more are unpacked.

    Raises:
        MediaError: there is no recording, or it cannot be read, is cut off or empty.
    """
    from scipy.signal import resample_poly

    content = file_of(cell)
    if not content:
        raise MediaError("is missing")
    samples, own_rate = _unpacked(content, seconds=most_samples / rate)
    if own_rate != rate:
        ratio = Fraction(rate, own_rate).limit_denominator(MOST_FACTOR)
        samples = resample_poly(samples, ratio.numerator, ratio.denominator)
    return np.asarray(samples, np.float32)


def recording_notes(content: bytes, sound: Waveform, *, seconds: float) -> list[Note]:
    """Return notes on a recording that goes on behind the seconds that are read, and on one that is silent in them."""
    import soundfile

    notes = []
    info = soundfile.info(io.BytesIO(content))
    length_s = info.frames / info.samplerate
    if info.frames < UNKNOWN_FRAMES and length_s > seconds + PADDING_S:
        reason = f"only {seconds:g} of its {length_s:.1f} seconds are read"
        kind = f"recordings are longer than the {seconds:g} seconds that task.seconds allows, and are cut at their ends"
        cut_ms, length_ms = round(1000 * (length_s - seconds)), round(1000 * length_s)
        notes.append(Note(reason, kind=kind, left_out=cut_ms, of=length_ms, unit="length"))
    if np.abs(sound).max(initial=0) <= SILENCE:
        notes.append(Note("it is silent", kind="recordings are silent in the seconds that are read"))
    return notes


def _unpacked(content: bytes, *, seconds: float) -> tuple[Waveform, int]:
    import soundfile

    size_bytes = int.from_bytes(content[4:8], "little") if content[:4] == b"RIFF" else 0
    if size_bytes not in UNKNOWN_SIZES and size_bytes > len(content) - 8:
        raise MediaError(f"is cut off: {len(content) - 8} of {size_bytes} bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            if not RATES[0] <= rate <= RATES[1] or channels > MOST_CHANNELS or channels * rate > MOST_VALUES_PER_S:
                raise MediaError(f"has {channels} channels at {rate} Hz")
            samples = file.read(frames=int(np.ceil(seconds * rate)), dtype="float32", always_2d=True)
    except MediaError:
        raise
    except Exception as error:  # the library has several; all mean that this is no recording
        raise MediaError(f"cannot be read ({type(error).__name__})") from None
    if not len(samples):
        raise MediaError("holds no sound")
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = samples.mean(axis=1)
    if not np.isfinite(mixed).all():
        raise MediaError("holds values that are no numbers")
    loudest = float(np.abs(samples).max())
    if loudest > MOST_LOUD:
        raise MediaError(f"holds values up to {loudest:g}, and sound is read from -1 to 1, so scale it to that")
    return mixed.clip(-1, 1), rate


def _extracted(extractor: Any, samples: Waveform) -> NDArray[np.float32]:
    inputs = extractor(samples, sampling_rate=extractor.sampling_rate, padding="max_length", max_length=len(samples))
    return np.asarray(inputs[extractor.model_input_names[0]][0], np.float32)
