"""Occlusion: how much an answer's score falls when one cell of an image, or of a recording's spectrogram, is hidden.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), by captum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.adapted_model.model import AdaptedModel
from shared.records.batches import Batch
from shared.tasks.images import ImageFormat
from shared.tasks.sounds import SoundFormat

CELLS, CELLS_AT_ONCE = 8, 8
"""Cells on each side of the grid, and how many hidden ones run in one pass."""
WINDOW = 512
"""Samples of a short Fourier transform."""


@dataclass(frozen=True)
class RegionAttribution:
    """A score's fall by hidden cell."""

    cells: NDArray[np.float64]
    """Fall of the score (rows, columns): from the top of an image; of a recording, from high tones to low."""
    shown: NDArray[np.uint8]
    """The image (height, width, channels), or a recording's spectrogram (bands, times, 1)."""
    score: float


def attribute_image(
    model: AdaptedModel, batch: Batch, score: Callable[[Tensor], Tensor], image_format: ImageFormat
) -> RegionAttribution:
    """Hide one cell of an image after the other, by the colour that the model takes for zero."""
    pixels = batch["pixels"].float().view(1, image_format.channels, *image_format.size)
    zero = torch.tensor(image_format.mean, device=pixels.device).view(1, -1, 1, 1) / image_format.scale
    falls = _falls(lambda x: score(model(_spread(batch, len(x), pixels=x.flatten(1)))), pixels, zero.expand_as(pixels))
    shown = pixels[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return RegionAttribution(falls, shown, _now(model, batch, score))


def attribute_sound(
    model: AdaptedModel, batch: Batch, score: Callable[[Tensor], Tensor], sound_format: SoundFormat
) -> RegionAttribution:
    """Hide one band of tones at one time after the other, by silence."""
    stored = batch["sound"].float().view(1, *sound_format.shape)
    if len(sound_format.shape) == 2:  # the model reads a spectrogram
        spectrum, silence = stored.unsqueeze(1), stored.amin()
        sounds: Callable[[Tensor], Tensor] = lambda x: x.squeeze(1)  # noqa: E731
        drawn = stored[0]
    else:
        window = torch.hann_window(WINDOW, device=stored.device)
        waves = torch.stft(stored, WINDOW, window=window, return_complex=True)
        spectrum, silence = torch.view_as_real(waves).permute(0, 3, 1, 2), stored.new_zeros(())
        drawn = waves[0].abs().log1p()

        def sounds(x: Tensor) -> Tensor:
            back = torch.view_as_complex(x.permute(0, 2, 3, 1).contiguous())
            return torch.istft(back, WINDOW, window=window, length=stored.shape[-1])

    falls = _falls(
        lambda x: score(model(_spread(batch, len(x), sound=sounds(x).flatten(1)))),
        spectrum,
        silence.expand_as(spectrum),
    )
    levels = (drawn - drawn.amin()) / (drawn.amax() - drawn.amin()).clamp(min=1e-9)
    shown = (255 * levels).round().to(torch.uint8).flip(0).unsqueeze(-1).cpu().numpy()
    return RegionAttribution(falls[::-1].copy(), shown, _now(model, batch, score))


def _falls(scores: Callable[[Tensor], Tensor], inputs: Tensor, hidden: Tensor) -> NDArray[np.float64]:
    """Return the fall of the score (rows, columns) when one cell of inputs (1, channels, height, width) is hidden."""
    from captum.attr import FeatureAblation

    height, width = inputs.shape[-2:]
    row = torch.arange(height, device=inputs.device) * CELLS // height
    column = torch.arange(width, device=inputs.device) * CELLS // width
    cells = row.view(-1, 1) * CELLS + column.view(1, -1)
    with torch.no_grad():
        parts = FeatureAblation(scores).attribute(
            inputs, baselines=hidden, feature_mask=cells.expand(1, 1, -1, -1), perturbations_per_eval=CELLS_AT_ONCE
        )
    falls = np.zeros((CELLS, CELLS))
    falls[row.cpu().numpy()[:, None], column.cpu().numpy()[None]] = parts[0, 0].double().cpu().numpy()
    return falls


def _spread(batch: Batch, count: int, **given: Tensor) -> Batch:
    return {name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in batch.items()} | given


def _now(model: AdaptedModel, batch: Batch, score: Callable[[Tensor], Tensor]) -> float:
    with torch.no_grad():
        return float(score(model(batch)))
