"""The speech synthesiser eSpeak NG, called through its library, without a sound device or an installation."""

import ctypes
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

SYNCHRONOUS, UTF8, FROM_CHARACTER = 2, 1, 1
RATE, PITCH = 1, 3
SEED = 1
LIBRARY = {"linux": "libespeak-ng.so", "darwin": "libespeak-ng.dylib", "win32": "espeak-ng.dll"}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Utterance(NamedTuple):
    """A text, and how it is spoken."""

    text: str
    voice: str
    """As espeak-ng names it: language+variant."""
    words_per_minute: int
    pitch: int
    """0 to 100."""


class Synthesiser:
    """Turns texts into waveforms."""

    def __init__(self, folder: Path) -> None:
        """Load the library and its voices from an unpacked package.

        Raises:
            DataError: it does not run on this machine.
        """
        try:
            self._library = ctypes.CDLL(str(folder / LIBRARY[sys.platform]))
            self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, str(folder).encode(), 0)
        except (OSError, KeyError) as error:
            raise DataError(f"Expected espeak-ng to run on {sys.platform}, got an error.", hint=str(error)) from None
        if self.sample_rate <= 0:
            raise DataError(f"Expected espeak-ng to find its voices, got {self.sample_rate}.")
        self._samples: list[NDArray[np.int16]] = []
        self._callback = CALLBACK(self._hear)  # the library keeps the pointer alone: this object must live as long
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, utterance: Utterance) -> NDArray[np.int16]:
        """Return the waveform of an utterance, at `sample_rate`.

        Raises:
            DataError: no such voice.
        """
        if self._library.espeak_SetVoiceByName(utterance.voice.encode()):
            raise DataError(f"Expected a voice of espeak-ng, got {utterance.voice!r}.")
        self._library.espeak_SetParameter(RATE, utterance.words_per_minute, 0)
        self._library.espeak_SetParameter(PITCH, utterance.pitch, 0)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # of its hissing sounds; else the clock is
        self._samples.clear()
        text = utterance.text.encode()
        self._library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, FROM_CHARACTER, 0, UTF8, None, None)
        return np.concatenate([np.zeros(0, np.int16), *self._samples])

    def _hear(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: object) -> int:
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
