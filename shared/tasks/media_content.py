"""Digests of what media files hold: the pixels of an image, the samples of a recording, whatever else the file says."""

import hashlib
import io

from shared.tasks.images import eight_bits, open_image
from shared.tasks.stored_images import opaque

BLOCK_FRAMES = 1 << 16
MOST_SAMPLES = 1 << 30
"""A longer recording is known by its file: a small file can hold years of silence."""


def image_digest(content: bytes) -> str:
    """Return a text that is equal for images of the same pixels, as they are stored; empty for no image.

    Greys of 16 bits count by their upper 8, however few of the bits are used: ledgers know images by that. Of
    transparency, only that of an image counts which shows nothing else.
    """
    try:
        image = opaque(eight_bits(open_image(content, as_it_is=True))).convert("RGB")
    except Exception:  # each decoder has its own; all mean that this is no image that a model reads
        return ""
    return f"pixels {image.width}x{image.height} {hashlib.sha256(image.tobytes()).hexdigest()}"


def sound_digest(content: bytes) -> str:
    """Return a text that is equal for recordings of the same samples; empty for no recording."""
    import soundfile

    hashed = hashlib.sha256()
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.frames * file.channels > MOST_SAMPLES:
                return ""
            # no `file.blocks`: behind the end of a file that was cut off, it gives whatever stood in memory
            while len(block := file.read(BLOCK_FRAMES, dtype="int32", always_2d=True)):
                hashed.update(block.tobytes())
            return f"samples {file.frames}x{file.channels} {file.samplerate} Hz {hashed.hexdigest()}"
    except Exception:  # the library has several; all mean that this is no recording
        return ""
