"""Read the file that a cell names: an image, a recording, a mask."""

from pathlib import Path

MOST_FILE_BYTES = 2**30
"""A larger file is not read: what one record costs in memory has a public bound."""


def read_media(path: Path) -> bytes:
    """Return the bytes of a media file; empty if there is none, or none that could be an image or a recording."""
    try:
        # a device or a pipe has no end
        return path.read_bytes() if path.is_file() and path.stat().st_size <= MOST_FILE_BYTES else b""
    except (OSError, ValueError):  # a cell may hold what is no path at all
        return b""
