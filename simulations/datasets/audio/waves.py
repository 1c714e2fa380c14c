"""Mono 16-bit WAV files at 16 kHz, the rate that speech models take."""

import io
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

SAMPLE_RATE = 16_000
LARGEST = 32_767


def resampled(samples: NDArray[np.int16], sample_rate: int) -> NDArray[np.float64]:
    """Bring a waveform to 16 kHz, in units of its 16-bit steps."""
    from scipy.signal import resample_poly

    ratio = Fraction(SAMPLE_RATE, sample_rate)
    return np.asarray(resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator))


def write_wave(path: Path, samples: NDArray[np.float64]) -> None:
    """Write a waveform at 16 kHz; values beyond 16 bits are cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
        file.writeframes(np.rint(samples).clip(-LARGEST, LARGEST).astype("<i2").tobytes())


def read_wave(content: bytes) -> tuple[NDArray[np.int16], int]:
    """Read a mono 16-bit WAV file; return samples and sample rate.

    Raises:
        DataError: it is something else.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise wave.Error(f"{file.getnchannels()} channels of {file.getsampwidth()} bytes")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16), file.getframerate()
    except (wave.Error, EOFError) as error:
        raise DataError("Expected a mono 16-bit WAV file, got something else.", hint=str(error)) from None
