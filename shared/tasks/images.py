"""Images: from the bytes of a file to the pixels that a base model sees, each by itself.

What a model expects follows from its folder: `preprocessor_config.json` if there is one, else its own image size and
values from -1 to 1.
"""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig

from shared.errors import SettingsError
from shared.tasks.kind import Cell

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""A larger image is refused before it is unpacked: a small file can hold a picture that fills the memory."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Others of Pillow's decoders call programs (EPS) or are rarely tested."""
PREPROCESSOR = "preprocessor_config.json"
BILINEAR, NEAREST = 2, 0  # as preprocessor_config.json and Pillow number them
Pixels = NDArray[np.uint8]
Size = tuple[int, int]


class MediaError(ValueError):
    """A file that cannot be used; the text says why, for the operator's eyes only."""


@dataclass(frozen=True)
class Framing:
    """How a base model wants its images."""

    size: Size
    """Height and width that the model sees."""
    resized: Size
    """Height and width to which an image is brought before its middle is cut out; `size` if nothing is cut off."""
    keep_aspect: bool
    """Whether only its shorter side is brought there."""
    channels: int
    resample: int
    """Pillow's number of the interpolation."""
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """A pixel enters the model as (value x scale - mean) / deviation, by channel."""

    def normalised(self, pixels: Tensor) -> Tensor:
        """Stored pixels (records, channels x height x width) as the model's input."""
        shaped = pixels.view(len(pixels), self.channels, *self.size).to(torch.float32)
        mean, deviation = (
            torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) for values in (self.mean, self.deviation)
        )
        return (shaped * self.scale - mean) / deviation

    def pixels(self, image: "Image") -> Pixels:
        """Flat pixels (channels x height x width) of an opened image."""
        framed = self._framed(image.convert("RGB" if self.channels == 3 else "L"), self.resample)
        return framed.reshape(*self.size, self.channels).transpose(2, 0, 1).ravel()

    def classes(self, mask: "Image") -> Pixels:
        """Flat values (height x width) of a mask, never mixed with each other."""
        return self._framed(mask, NEAREST).ravel()

    def _framed(self, image: "Image", resample: int) -> Pixels:
        """Resize and cut out the middle in one step, so that no picture of odd proportions is blown up in between."""
        (height, width), high, wide = self.size, float(image.height), float(image.width)
        if self.keep_aspect:
            high = wide = min(high, wide)
        high, wide = high * height / self.resized[0], wide * width / self.resized[1]
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
        return np.asarray(image.resize((width, height), resample, box=box), dtype=np.uint8)


def framing(directory: Path, config: PretrainedConfig) -> Framing:
    """How the base model in this folder wants its images.

    Raises:
        SettingsError: the model takes no images, or neither file tells their size.
    """
    said = _preprocessor(directory)
    channels = getattr(config, "num_channels", None)
    if channels not in (1, 3):
        raise SettingsError(f"Expected a base model that sees images, got model type {config.model_type!r}.")
    crop = said.get("crop_size") if said.get("do_center_crop") else None
    resized, keep_aspect = _size(said.get("size"))
    size = _size(getattr(config, "image_size", None))[0] or _size(crop)[0] or resized
    if size is None:
        raise SettingsError(f"Expected {PREPROCESSOR} with a size in {directory}, got none.")
    if crop is None or resized is None or resized[0] < size[0] or resized[1] < size[1]:
        resized, keep_aspect = size, False
    normalise, grey = said.get("do_normalize", True), [0.5] * channels
    mean, deviation = (said.get("image_mean") or grey, said.get("image_std") or grey) if normalise else ([0.0], [1.0])
    return Framing(
        size=size,
        resized=resized,
        keep_aspect=keep_aspect,
        channels=int(channels),
        resample=int(said.get("resample", BILINEAR)),
        scale=float(said.get("rescale_factor") or 1 / 255),
        mean=_by_channel(mean, channels),
        deviation=_by_channel(deviation, channels),
    )


def patches(config: PretrainedConfig, size: Size) -> Size:
    """Rows and columns of the tokens that the model first cuts an image of this size into."""
    found = getattr(config, "patch_size", None) or getattr(config, "strides", None)
    first = found if isinstance(found, int) else (found or (16,))[0]
    return max(1, size[0] // first), max(1, size[1] // first)


def opened(cell: Cell, *, as_it_is: bool = False) -> "Image":
    """Unpack the image of a cell: its bytes, or the name of its file.

    Args:
        cell: of a media column.
        as_it_is: leave 16-bit values alone, as those of a mask.

    Raises:
        MediaError: there is none, it is no image or a broken one, or it is too large to be unpacked.
    """
    from PIL import Image

    content = file_of(cell)
    if not content:
        raise MediaError("is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too many pixels: the limit here is ours
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MOST_PIXELS:
                raise MediaError(f"has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            image.load()
    except MediaError:
        raise
    except Image.DecompressionBombError:
        raise MediaError(f"has more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # each decoder has its own; all mean that this is no image
        raise MediaError(f"cannot be read ({type(error).__name__})") from None
    return image if as_it_is else _eight_bits(image)


def file_of(cell: Cell) -> bytes:
    """Bytes of a media cell; empty if its file is not there."""
    if isinstance(cell, bytes):
        return cell
    try:
        return Path(cell).read_bytes()
    except OSError:
        return b""


def synthetic_pixels(records: int, length: int, *, variant: int, seed: int = 22) -> list[Pixels]:
    """Pixels from a public generator; `variant` changes the first record's."""
    seeds = [[seed, n] if n or not variant else [seed, 0, variant] for n in range(records)]
    return [np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8) for seed in seeds]


def _eight_bits(image: "Image") -> "Image":
    """Bring 16-bit greys (X-rays, microscopes) to 8 bits; Pillow would cut them off at 255."""
    from PIL import Image

    if image.mode == "F":
        raise MediaError("holds fractions, whose range nobody tells")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8))


def _preprocessor(directory: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((directory / PREPROCESSOR).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SettingsError(f"Expected JSON in {directory / PREPROCESSOR}, got: {error}") from None
    return found if isinstance(found, dict) else {}


def _size(said: Any) -> tuple[Size | None, bool]:
    """Height and width, and whether only the shorter side is meant."""
    if isinstance(said, int):
        return (said, said), False
    if isinstance(said, list | tuple) and len(said) == 2:
        return (int(said[0]), int(said[1])), False
    if isinstance(said, Mapping) and "shortest_edge" in said:
        return (int(said["shortest_edge"]),) * 2, True
    if isinstance(said, Mapping) and {"height", "width"} <= set(said):
        return (int(said["height"]), int(said["width"])), False
    return None, False


def _by_channel(values: float | Sequence[float], channels: int) -> tuple[float, ...]:
    listed = [float(values)] if isinstance(values, int | float) else [float(value) for value in values]
    return tuple(listed * channels if len(listed) == 1 else listed[:channels])
