"""Digests of media: of the content alone, in bounds, and of anything at all."""

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings

from shared.tasks import media_content
from shared.tasks.media_content import image_digest, sound_digest
from tests.support.hostile_cells import images, media_cell, recordings


def noise(frames: int, kind: str = "FLAC") -> bytes:
    target = io.BytesIO()
    wave = np.random.default_rng(0).standard_normal(frames) / 8
    soundfile.write(target, wave, 8000, format=kind)
    return target.getvalue()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, database=None, suppress_health_check=list(HealthCheck))
@given(cell=media_cell([*images(), *recordings()]))
def test_any_bytes_have_one_digest(cell: Any) -> None:
    content = cell if isinstance(cell, bytes) else b""
    assert image_digest(content) == image_digest(content)
    assert sound_digest(content) == sound_digest(content)


def test_a_recording_that_was_cut_off_has_the_digest_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory that nobody wrote enters it."""
    whole = noise(20_000, "MP3")
    cut = whole[: len(whole) // 2]
    empty = np.empty
    digests = set()
    for value in (1, 2):
        monkeypatch.setattr(np, "empty", lambda *a, value=value, **k: empty(*a, **k) * 0 + value)
        digests.add(sound_digest(cut))
    assert len(digests) == 1


def test_a_recording_beyond_the_public_bound_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sound_digest(noise(1000)).startswith("samples 1000x1 8000 Hz")
    monkeypatch.setattr(media_content, "MOST_SAMPLES", 999)
    assert sound_digest(noise(1000)) == ""
