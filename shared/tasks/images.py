"""Turn the bytes of image files into the pixels that a base model reads, each image by itself.

The model's folder tells what it expects: by `preprocessor_config.json` if there is one, otherwise by its own image
size, with values from -1 to 1. A study may choose another size.
"""

import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.base_models.model_folder import PREPROCESSOR, image_settings
from shared.errors import SettingsError
from shared.records.media_files import read_media
from shared.records.ragged import Note
from shared.tasks.kind import Cell
from shared.tasks.stored_images import DEPTHS, drawn_in_transparency, opaque, out_of_range, white_is_zero

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""A larger image is refused before it is unpacked: a small file can hold an image that fills the memory."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are read. Pillow's other decoders start programs (EPS) or are rarely tested."""
RESAMPLINGS = range(6)
ORIENTATION, TURNED = 0x0112, range(2, 9)
"""Number of the note that a camera leaves on how it was held, and its values for all ways but upright."""
BRIGHTEST, SPANS = 255, (0.1, 256)
"""Of 8 bits; and the least and most that black and white may differ for a model, or an image shows it nothing."""
BILINEAR, NEAREST = 2, 0  # as preprocessor_config.json and Pillow number them
ANY_SIZE = ("dinov2", "dinov2_with_registers")
"""Model types that fit their positions to each image: the size of their configuration is that of their positions."""
INTERPOLATES = "interpolate_pos_encoding"
Pixels = NDArray[np.uint8]
Size = tuple[int, int]


class MediaError(ValueError):
    """A media file cannot be used; the message gives the reason, for the operator's eyes only."""


@dataclass(frozen=True)
class ImageFormat:
    """Size and scale of the images that a base model reads."""

    size: Size
    """Height and width that the model reads."""
    resized: Size
    """Height and width to which an image is resized before its middle is cut out; `size` if nothing is cut off."""
    keep_aspect: bool
    """True if only the image's shorter side is resized to that."""
    channels: int
    resample: int
    """Pillow's number of the interpolation."""
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """A pixel enters the model as (value x scale - mean) / deviation, by channel."""
    flipped: bool = False
    """True for a model that reads blue, green and red, in this order."""

    def normalised(self, pixels: Tensor) -> Tensor:
        """Turn stored pixels (records, channels x height x width) into the model's input."""
        shaped = pixels.view(-1, self.channels, *self.size).to(torch.float32)
        mean, deviation = (
            torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) for values in (self.mean, self.deviation)
        )
        entering = (shaped * self.scale - mean) / deviation
        return entering.flip(1) if self.flipped else entering

    def pixels(self, image: "Image") -> Pixels:
        """Return the flat pixels (channels x height x width) of an image."""
        resized = self._resized(image.convert("RGB" if self.channels == 3 else "L"), self.resample)
        return resized.reshape(*self.size, self.channels).transpose(2, 0, 1).ravel()

    def classes(self, mask: "Image") -> Pixels:
        """Return the flat values (height x width) of a mask; resizing never mixes two values."""
        return self._resized(mask, NEAREST).ravel()

    def _resized(self, image: "Image", resample: int) -> Pixels:
        """Resize and cut out the middle in one step, so that no image of odd proportions is enlarged in between."""
        (height, width), high, wide = self.size, float(image.height), float(image.width)
        if self.keep_aspect:
            high = wide = min(high, wide)
        high, wide = high * height / self.resized[0], wide * width / self.resized[1]
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
        return np.asarray(image.resize((width, height), resample, box=box), dtype=np.uint8)


def image_format_of(directory: Path, config: PretrainedConfig, *, side: int | None = None) -> ImageFormat:
    """Read from a base model's folder what images it expects.

    Args:
        directory: the model's folder.
        config: its configuration.
        side: height and width that the study wants instead; None for the model's own.

    Raises:
        SettingsError: the model reads no images, or no file tells their size.
    """
    preprocessor = image_settings(directory)
    channels = getattr(config, "num_channels", None)
    if channels not in (1, 3):
        raise SettingsError(
            f"Expected a base model that reads images, got model type {config.model_type!r}.",
            hint="ViT, DeiT, DINOv2, BEiT and the image part of CLIP or SigLIP (clip_vision_model) read them.",
        )
    crop = preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else None
    resized, keep_aspect = _size(preprocessor.get("size"))
    pretrained = None if config.model_type in ANY_SIZE else _size(getattr(config, "image_size", None))[0]
    size = pretrained or _size(crop)[0] or resized
    if size is None and side is None:
        raise SettingsError(f"Expected {PREPROCESSOR} with a size in {directory}, got none.")
    size = size or (side or 0, side or 0)
    if crop is None or resized is None or resized[0] < size[0] or resized[1] < size[1]:
        resized, keep_aspect = size, False
    if side is not None:  # the same share of each image is cut off
        resized, size = (round(side * resized[0] / size[0]), round(side * resized[1] / size[1])), (side, side)
    mean, deviation, scale = _units(preprocessor, channels)
    image_format = ImageFormat(
        size=size,
        resized=resized,
        keep_aspect=keep_aspect,
        channels=int(channels),
        resample=int(preprocessor.get("resample", BILINEAR)),
        scale=scale,
        mean=_by_channel(mean, channels),
        deviation=_by_channel(deviation, channels),
        flipped=bool(preprocessor.get("do_flip_channel_order", False)),
    )
    _check(image_format, config)
    return image_format


def _check(image_format: ImageFormat, config: PretrainedConfig) -> None:
    """Refuse what would make every image unusable, or every gradient none.

    Raises:
        SettingsError: size, scale or interpolation are none that a model can read.
    """
    (height, width), scales = image_format.size, (image_format.scale, *image_format.mean, *image_format.deviation)
    if min(height, width, *image_format.resized) < patch_side(config) or height * width > MOST_PIXELS:
        raise SettingsError(
            f"Expected images of at least one patch of {patch_side(config)} pixels a side, and of at most "
            f"{MOST_PIXELS:,} pixels, got {height} x {width}."
        )
    per_channel = {len(image_format.mean), len(image_format.deviation)}
    if per_channel != {image_format.channels} or not np.isfinite(scales).all() or 0 in image_format.deviation:
        raise SettingsError(
            f"Expected image_mean and image_std of {image_format.channels} channels in {PREPROCESSOR}, all finite and "
            f"no deviation of zero, got {image_format.mean} and {image_format.deviation}."
        )
    white = BRIGHTEST * image_format.scale
    spans = [abs(white / deviation) for deviation in image_format.deviation]
    if not SPANS[0] <= min(spans) <= max(spans) <= SPANS[1] or max(map(abs, image_format.mean)) > 1.01 * abs(white):
        raise SettingsError(
            f"Expected image_mean and image_std in {PREPROCESSOR} in the units of pixels x {image_format.scale:g}, got "
            f"{image_format.mean} and {image_format.deviation}.",
            hint="With do_rescale they are usually between 0 and 1; without it, between 0 and 255.",
        )
    if image_format.resample not in RESAMPLINGS:
        raise SettingsError(f"Expected resample of {RESAMPLINGS} in {PREPROCESSOR}, got {image_format.resample}.")


def positions(base: nn.Module, size: Size) -> dict[str, bool]:
    """Return the argument that makes a model fit its positions to images of this size; empty if it needs none.

    Raises:
        SettingsError: the model has positions for images of its own size alone.
    """
    config: Any = base.config
    pretrained = _size(getattr(config, "image_size", None))[0]
    if pretrained in (None, size) or config.model_type in ANY_SIZE:
        return {}
    if INTERPOLATES not in inspect.signature(base.forward).parameters:
        raise SettingsError(
            f"Expected task.image_size={pretrained[0]} for a {config.model_type}, got {size[0]}.",
            hint="It has positions for images of that size alone.",
        )
    return {INTERPOLATES: True}


def patches(config: PretrainedConfig, size: Size) -> Size:
    """Return rows and columns of the patches into which the model cuts an image of this size."""
    side = patch_side(config)
    return max(1, size[0] // side), max(1, size[1] // side)


def patch_side(config: PretrainedConfig) -> int:
    """Return height and width of the patches into which the model cuts an image; 16 where it names none."""
    side = getattr(config, "patch_size", None) or getattr(config, "strides", None)
    return int(side if isinstance(side, int) else (side or (16,))[0])


def open_image(cell: Cell, *, as_it_is: bool = False) -> "Image":
    """Unpack the image of a cell, which holds its bytes or the name of its file.

    Args:
        cell: of a media column.
        as_it_is: keep 16-bit values, as those of a mask, and the pixels as they are stored.

    Raises:
        MediaError: there is no image, it cannot be read, or it is too large to be unpacked.
    """
    from PIL import Image

    content = file_of(cell)
    if not content:
        raise MediaError("is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about too many pixels: the limit here is ours
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
    return image if as_it_is else as_seen(image)


def file_of(cell: Cell) -> bytes:
    """Return the bytes of a media cell; empty if its file is missing."""
    return cell if isinstance(cell, bytes) else read_media(Path(cell))


def synthetic_pixels(records: int, length: int, *, variant: int, seed: int = 22) -> list[Pixels]:
    """Draw pixels from a public generator; `variant` changes those of the first record."""
    seeds = [[seed, n] if n or not variant else [seed, 0, variant] for n in range(records)]
    return [np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8) for seed in seeds]


def as_seen(image: "Image", *, turn: bool = True) -> "Image":
    """Return an image as people see it: upright, its greys over the whole range, its drawing on paper.

    Args:
        image: as it is stored.
        turn: false leaves a photograph as it is stored.

    Raises:
        MediaError: it holds fractions of an unknown range, or greys below 0 or above 65,535.
    """
    from PIL import ImageOps

    picture = eight_bits(upright(image) if turn else image, bits=depth_of(image))
    return opaque(ImageOps.invert(picture) if white_is_zero(image) else picture)


def image_notes(image: "Image", *, turn: bool = True) -> list[Note]:
    """Return how an image as it is stored differs from the image as it is seen."""
    bits, notes = depth_of(image), list[Note]()
    if image.mode.startswith("I") and bits < DEPTHS[-1]:
        kind = f"images hold greys of at most {bits} bits in 16, and were read as greys of {bits}"
        notes.append(Note(f"its greys have at most {bits} bits", kind=kind))
    if turn and upright(image) is not image:
        notes.append(Note("it is stored turned", kind="images are stored turned, and were turned upright"))
    if drawn_in_transparency(image):
        kind = "images are of one colour but for their transparency, and were laid on white, or on black if white"
        notes.append(Note("it is drawn in its transparency", kind=kind))
    return notes


def upright(image: "Image") -> "Image":
    """Turn a photograph as its camera was held, where the file says so."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) in TURNED else image
    except Exception:  # broken notes of a camera are no reason to lose its picture
        return image


def depth_of(image: "Image") -> int:
    """Return the fewest of 8, 10, 12, 14 and 16 bits that hold the brightest grey: scanners use some of a file's 16.

    Raises:
        MediaError: a grey is below 0 or above 65,535.
    """
    if not image.mode.startswith("I"):
        return 8
    if (reason := out_of_range(image)) is not None:
        raise MediaError(reason)
    brightest = int(np.asarray(image).max(initial=0))
    return next((bits for bits in DEPTHS if brightest < 1 << bits), DEPTHS[-1])


def eight_bits(image: "Image", *, bits: int = 16) -> "Image":
    """Scale greys of so many bits (X-rays, microscopes) to 8 bits; Pillow would cut them off at 255."""
    from PIL import Image

    if image.mode == "F":
        raise MediaError("holds fractions of an unknown range")
    if not image.mode.startswith("I"):
        return image
    # in its own type: 64 bits for each pixel would be eight times as much
    return Image.fromarray((np.asarray(image).clip(0, 65_535) >> (bits - 8)).astype(np.uint8))


def _size(declared: Any) -> tuple[Size | None, bool]:
    """Read height and width from a preprocessor's setting, and whether only the shorter side counts."""
    if isinstance(declared, int):
        return (declared, declared), False
    if isinstance(declared, list | tuple) and len(declared) == 2:
        return (int(declared[0]), int(declared[1])), False
    if isinstance(declared, Mapping) and "shortest_edge" in declared:
        return (int(declared["shortest_edge"]),) * 2, True
    if isinstance(declared, Mapping) and {"height", "width"} <= set(declared):
        return (int(declared["height"]), int(declared["width"])), False
    return None, False


def _units(preprocessor: Mapping[str, Any], channels: int) -> tuple[Any, Any, float]:
    """Read mean, deviation and scale of pixels; without rescaling, the first two are those of pixels up to 255."""
    rescale, grey = preprocessor.get("do_rescale", True), [0.5] * channels
    scale = float(preprocessor.get("rescale_factor") or 1 / BRIGHTEST) if rescale else 1.0
    if not preprocessor.get("do_normalize", True):
        return [0.0], [1.0], scale
    return preprocessor.get("image_mean") or grey, preprocessor.get("image_std") or grey, scale


def _by_channel(values: float | Sequence[float], channels: int) -> tuple[float, ...]:
    listed = [float(values)] if isinstance(values, int | float) else [float(value) for value in values]
    return tuple(listed * channels if len(listed) == 1 else listed[:channels])
