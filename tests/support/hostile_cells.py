"""Cells that somebody makes on purpose, as Hypothesis draws them: for texts, for images and for recordings."""

import io
import json
import struct
import zlib
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import soundfile
from hypothesis import strategies as st
from PIL import Image

Cells = st.SearchStrategy[Any]
TEXTS = (
    "", " ", "\x00", "bad \ud83d", "\udc00", "\ufeff", "\u200b", "\u202e", "a\u0301" * 3000, "\r\n\x0b\x0c\x85\u2028",
    "NA", "null", "nan", "inf", "-Infinity", "1e400", "-1e-400", "9" * 5000, "0x10", "1_000", "١٢", "|", "a|" * 5000,
    "[PAD] [MASK]", "<pad></s><s><unk>", "<turn> assistant", "</think>", "{{ messages }}", "a" * 5000, "[" * 100_000,
    '{"a":' * 100_000, "[]", "[[]]", '["a", 1]', '["a", null]', '["\\ud83d"]', '[""]', "{}", "/dev/zero", "../..",
)  # fmt: skip
ANSWERS = (
    '[], "answer_start": []', '"ada", "answer_start": "123"', '["ada"], "answer_start": [Infinity]',
    '["ada"], "answer_start": [NaN]', '["ada"], "answer_start": [-1e400]', '["ada"], "answer_start": [-3]',
    '["ada"], "answer_start": [9e99]', '[[["ada"]]], "answer_start": [0]', '["ada", "ada"], "answer_start": [0]',
    '["ada"], "answer_start": [0], "x": ' + "[" * 3000 + "]" * 3000,
    "[" + '"a",' * 3000 + '"a"], "answer_start": [' + "0," * 3000 + "0]",
)  # fmt: skip
MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "WEBP": ("RGB", "RGBA")}
MODES |= {
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "LAB", "CMYK", "F", "I", "I;16", "RGBA", "YCbCr"),
}
SHAPES = ((16, 16), (1, 1), (1, 2000), (40, 17))


def any_cell() -> Cells:
    """Draw a cell of any type that JSON, Arrow or pandas may hold."""
    others = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=40), st.dates(), st.decimals(),
        st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        st.sampled_from([np.float32("nan"), np.int64(-(2**63)), np.array([1, 2]), np.datetime64("NaT"), 10**400]),
        st.sampled_from([date.max, datetime.min, Decimal("sNaN"), float("inf"), b"\xff\xfe", [[["a"]]]]),
    )  # fmt: skip
    return st.one_of(text_cell(), text_cell(), others)


def text_cell() -> Cells:
    """Draw a text: any characters, halves of a pair among them, JSON of every kind, and lengths beyond any limit."""
    anything = st.text(st.characters(exclude_categories=()), max_size=60)
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
    nested = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    )
    some = st.lists(st.one_of(st.sampled_from(["ada", "in", "paris"]), leaves), max_size=3)
    answers = st.fixed_dictionaries({"text": st.one_of(some, nested), "answer_start": st.one_of(some, nested)})
    words = st.lists(
        st.sampled_from(["ada", "paris", "O", "B-PER", "yes", "mood", "names", "reading", "5"]), max_size=4
    )
    return st.one_of(
        anything,
        st.sampled_from(TEXTS),
        st.sampled_from(ANSWERS).map(lambda answers: '{"text": ' + answers + "}"),
        words.map(" ".join),
        words.map(json.dumps),
        nested.map(json.dumps),
        answers.map(json.dumps),
        st.builds(lambda part, times: part * times, st.text(max_size=4), st.integers(0, 4000)),
    )


def media_cell(files: list[bytes]) -> Cells:
    """Draw a media file that is broken somewhere, or whole and strange, or none at all."""
    whole = st.sampled_from(files)
    cut = st.builds(lambda file, share: file[: int(share * len(file))], whole, st.floats(0, 1))
    return st.one_of(
        whole, cut, st.builds(_changed, whole, st.lists(_CHANGES, max_size=6)), st.binary(max_size=60), any_cell()
    )


def images() -> list[bytes]:
    """Make image files of every mode of every format, small and strange ones, and one that says it is enormous."""
    made = [_image(mode, shape, kind) for kind, modes in MODES.items() for mode in modes for shape in SHAPES]
    return [*made, png_header(100_000, 100_000), png_header(2**31 - 1, 2**31 - 1), png_header(8001, 8000)]


def png_header(width: int, height: int) -> bytes:
    """Make a PNG file that only says how large it is."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def recordings() -> list[bytes]:
    """Make recordings in every format, of strange rates, channels and values, and of no length."""
    rates = (1, 999, 1000, 7993, 8000, 44_100, 767_957, 768_000, 2**31 - 1)
    wave = 0.5 * np.sin(np.arange(300) / 5)
    made = [_sound(wave, rate) for rate in rates]
    made += [_sound(np.stack([wave] * channels, axis=1), 8000) for channels in (2, 16, 17)]
    made += [_sound(wave[:length], 8000) for length in (0, 1, 3)]
    made += [_sound(wave, 8000, **form) for form in ({"format": "FLAC"}, {"format": "OGG"}, {"format": "MP3"})]
    odd = (np.nan, np.inf, -3e38, 3e38, 1e-45)
    floats = {"subtype": "FLOAT"}
    made += [_sound(np.full((300, 2), value), 8000, **floats) for value in odd]
    made += [_sound(np.where(np.arange(300) == 7, value, wave), 8000, **floats) for value in odd]
    return made


def _changed(file: bytes, changes: list[tuple[float, int]]) -> bytes:
    changed = bytearray(file)
    for share, byte in changes:
        if changed:
            changed[int(share * (len(changed) - 1))] = byte
    return bytes(changed)


# most of what a file says stands at its beginning
_CHANGES = st.tuples(st.one_of(st.floats(0, 1), st.floats(0, 0.1)), st.integers(0, 255))


def _image(mode: str, shape: tuple[int, int], kind: str) -> bytes:
    target = io.BytesIO()
    Image.new(mode, shape).save(target, kind)
    return target.getvalue()


def _sound(wave: Any, rate: int, **form: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(
        target, wave, rate, **({"format": "WAV", "subtype": "PCM_16"} if not form else {"format": "WAV"} | form)
    )
    return target.getvalue()
