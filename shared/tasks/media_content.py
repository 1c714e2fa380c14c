"""Digests of what media files hold: the pixels of an image, the samples of a recording, whatever else the file says."""

import hashlib
import io

from shared.tasks.images import MediaError, open_image

BLOCK_FRAMES = 1 << 16


def image_digest(content: bytes) -> str:
    """Return a text that is equal for images of the same pixels, as models read them; empty for no image."""
    try:
        image = open_image(content).convert("RGB")
    except MediaError:
        return ""
    return f"pixels {image.width}x{image.height} {hashlib.sha256(image.tobytes()).hexdigest()}"


def sound_digest(content: bytes) -> str:
    """Return a text that is equal for recordings of the same samples; empty for no recording."""
    import soundfile

    hashed = hashlib.sha256()
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            for block in file.blocks(BLOCK_FRAMES, dtype="int32", always_2d=True):
                hashed.update(block.tobytes())
            return f"samples {file.frames}x{file.channels} {file.samplerate} Hz {hashed.hexdigest()}"
    except Exception:  # the library has several; all mean that this is no recording
        return ""
