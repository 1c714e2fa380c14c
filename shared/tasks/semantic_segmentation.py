"""Semantic segmentation: an image, and a mask that gives every pixel a class.

The head is linear: it reads the class of each patch from its state, and its outputs are enlarged to the mask's size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from shared.base_models.load import width_of
from shared.base_models.locate import BaseModelFiles
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Note, Problem, Records, ragged
from shared.study import tasks as declarations
from shared.study.tasks import FEATURE_NORM
from shared.tasks.image_classification import image_input, image_processor, pixel_field
from shared.tasks.images import (
    ImageFormat,
    MediaError,
    Size,
    as_seen,
    file_of,
    image_format_of,
    image_notes,
    open_image,
    patches,
    positions,
    synthetic_pixels,
)
from shared.tasks.kind import Cell, Column, Evidence, OutputKind, Predictor, Rows, zero_linear
from shared.tasks.stored_images import file_notes

UNCOUNTED = 255
"""Value of a stored mask where a pixel has no class, whatever value the study's masks use."""
MASK_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")


class SemanticSegmentation(OutputKind):
    """The kind `semantic-segmentation`."""

    peft_task = None
    reads = ("pixels",)
    metric, higher_is_better = "mean_iou", True
    columns = (Column("image", media=True), Column("mask", media=True))
    image_format: ImageFormat
    positions: dict[str, bool]
    grid: Size

    def __init__(self, task: declarations.SemanticSegmentation) -> None:
        self.task = task
        self.classes = len(task.labels)
        self.fills = {"pixels": None, "mask_values": None}

    def processor(self, base_files: BaseModelFiles) -> ImageFormat:
        """Read how the base model wants its images."""
        return image_processor(base_files, self.task.image_size)

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode pixels and their classes at the model's size; a row with a bad image or mask cannot be used."""
        images: list[Any] = []
        masks: list[Any] = []
        problems = []
        for row, (image, mask) in enumerate(zip(rows["image"], rows["mask"], strict=True)):
            pixels, values, reasons = self._pair(image, mask, processor)
            images.append(pixels)
            masks.append(values)
            problems += [Problem(row, reason) for reason in reasons]
        nothing = np.full(processor.size[0] * processor.size[1], UNCOUNTED, np.uint8)
        fields = {
            "pixels": pixel_field(images, processor),
            "mask_values": ragged([nothing if mask is None else mask for mask in masks], np.uint8),
        }
        usable = [image is not None and mask is not None for image, mask in zip(images, masks, strict=True)]
        return Encoded(Records(fields, np.array(usable, dtype=bool)), tuple(problems))

    def _pair(self, image: Cell, mask: Cell, image_format: ImageFormat) -> tuple[Any, Any, list[str]]:
        """Return pixels and classes of one row; the reason if one of them is missing, and notes."""
        try:
            content = file_of(image)
            # as its mask was drawn: masks have no note on how to turn them
            stored = open_image(content, as_it_is=True)
            picture = as_seen(stored, turn=False)
            pixels = image_format.pixels(picture)
        except MediaError as error:
            return None, None, [f"its image {error}"]
        notes: list[str] = [*image_notes(stored, turn=False), *file_notes(content, stored)]
        try:
            values, mask_notes = self._values(mask, picture.size, image_format)
        except MediaError as error:
            return pixels, None, [*notes, f"its mask {error}"]
        return pixels, values, [*notes, *mask_notes]

    def _values(self, cell: Cell, size: Size, image_format: ImageFormat) -> tuple[NDArray[np.uint8], list[Note]]:
        from PIL import Image

        mask = open_image(cell, as_it_is=True)
        if mask.mode not in MASK_MODES:
            raise MediaError(f"has more than one channel (mode {mask.mode})")
        if mask.size != size:
            raise MediaError(f"has {mask.width} x {mask.height} pixels, its image {size[0]} x {size[1]}")
        values = np.asarray(mask)  # in its own type: 64 bits for each pixel would be eight times as much
        counted = values != self.task.ignore
        unknown = np.unique(values[counted & ((values < 0) | (values >= self.classes))])
        if len(unknown):
            raise MediaError(f"holds {unknown[0]}, which is none of the study's {self.classes} classes")
        stored = np.where(counted, values, UNCOUNTED).astype(np.uint8)
        classes = image_format.classes(Image.fromarray(stored))
        if (classes == UNCOUNTED).all():
            raise MediaError("has no pixel that counts")
        return classes, self._mask_notes(values, counted)

    def _mask_notes(self, values: NDArray[Any], counted: NDArray[np.bool_]) -> list[Note]:
        """Return a note on a mask of one class beside ignored pixels: often 255 was meant as a second class."""
        if counted.all() or len(np.unique(values[counted])) > 1:
            return []
        ignore = self.task.ignore
        kind = (
            f"masks have one class only beside pixels of {ignore}, which task.ignore={ignore} leaves out; if {ignore} "
            "is a class, write classes as 0, 1, 2, … in the order of task.labels"
        )
        return [Note(f"its mask has one class beside pixels of {ignore}", kind=kind)]

    def adapt(self, base: nn.Module) -> None:
        """Read the size of images and patches from the study and the base model, without changing it."""
        config: Any = base.config
        if hasattr(config, "depths") and not _staged(config):
            raise SettingsError(
                f"Expected a ViT or a SegFormer for masks, got model type {config.model_type!r}.",
                hint="Models whose stages have other forms have no state for each patch. DINOv2 and BEiT have, too.",
            )
        self.image_format = image_format_of(Path(str(base.name_or_path)), config, side=self.task.image_size)
        self.positions = positions(base, self.image_format.size)
        self.grid = patches(config, self.image_format.size)
        self.fixed_tokens = self.grid[0] * self.grid[1]

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make a head with one output per class, for every patch."""
        return zero_linear(_state_width(config), self.classes)

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute the states of patches and of any tokens before them; in a model of stages, those of every stage."""
        pixels = image_input(batch, self.image_format)
        outputs = base(pixel_values=pixels, output_hidden_states=_staged(base.config), **self.positions)
        if not _staged(base.config):
            states: Tensor = outputs.last_hidden_state
            return states
        stages = [F.normalize(stage, dim=1) for stage in outputs.hidden_states]
        enlarged = [F.interpolate(stage, size=self.grid, mode="bilinear", align_corners=False) for stage in stages]
        return torch.cat(enlarged, dim=1).flatten(2).transpose(1, 2)

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Scale each patch's state to one length, as equal lengths help under clipping."""
        del batch
        return FEATURE_NORM * F.normalize(states[:, -self.fixed_tokens :], dim=-1)

    def answer(self, head: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Compute each class's score at each pixel (records, classes, height, width)."""
        del batch
        by_patch: Tensor = head(features)
        shaped = by_patch.transpose(1, 2).reshape(len(by_patch), -1, *self.grid)
        return F.interpolate(shaped, size=self.image_format.size, mode="bilinear", align_corners=False)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy over each record's own pixels with a class; 0 for a record without any."""
        truth = batch["mask_values"].view(len(outputs), *self.image_format.size).long()
        each = F.cross_entropy(outputs, truth, reduction="none", ignore_index=UNCOUNTED)
        counted = (truth != UNCOUNTED).flatten(1).sum(1)
        return each.flatten(1).sum(1) / counted.clamp(min=1)

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Count each record's pixels by class: right, predicted, true."""
        del batch
        predicted = outputs.argmax(1).flatten(1).cpu().numpy()
        truths = [records["mask_values"][i] for i in indices]
        return [self._pixels(guess, truth) for guess, truth in zip(predicted, truths, strict=True)]

    def predict(
        self, model: Predictor, batch: Batch, records: Records, indices: Sequence[int]
    ) -> list[NDArray[np.uint8]]:
        """Return the class of each pixel of each image, at the model's size (height, width)."""
        del records, indices
        return list(model.outputs(batch).argmax(1).cpu().numpy().astype(np.uint8))

    def _pixels(self, guess: NDArray[Any], truth: NDArray[Any]) -> Evidence:
        counted = truth != UNCOUNTED
        guess, truth = guess[counted], truth[counted]
        counts = [np.bincount(part, minlength=self.classes) for part in (truth[guess == truth], guess, truth)]
        return tuple(count.astype(np.int64) for count in counts)

    def prediction(self, evidence: Evidence) -> None:
        """Return nothing: evidence counts pixels by class."""

    def truth(self, evidence: Evidence) -> None:
        """Return nothing, likewise."""

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute intersection over union, as a mean over the classes that occur, and the share of right pixels."""
        if not evidence:
            return {"mean_iou": 0.0, "pixel_accuracy": 0.0}
        right, predicted, true = (np.sum(part, axis=0) for part in zip(*evidence, strict=True))
        union = predicted + true - right
        occurs = union > 0
        mean = float((right[occurs] / union[occurs]).mean()) if occurs.any() else 0.0
        return {"mean_iou": mean, "pixel_accuracy": float(right.sum() / max(1, true.sum()))}

    def score(self, evidence: Evidence) -> float:
        """Return the share of right pixels among those with a class."""
        right, _, true = evidence
        return float(right.sum() / max(1, true.sum()))

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random pixels and classes."""
        del config
        area = self.image_format.size[0] * self.image_format.size[1]
        masks = synthetic_pixels(len(lengths), area, variant=variant, seed=24)
        fields = {
            "pixels": ragged(
                synthetic_pixels(len(lengths), self.image_format.channels * area, variant=variant), np.uint8
            ),
            "mask_values": ragged([mask % self.classes for mask in masks], np.uint8),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def counts(self, records: Records) -> dict[str, int]:
        """Count the usable records in which each class occurs."""
        counts = np.zeros(self.classes, np.int64)
        for index in np.flatnonzero(records.usable).tolist():
            present = np.unique(records["mask_values"][index])
            counts[present[present != UNCOUNTED]] += 1
        return dict(zip(self.task.labels, counts.tolist(), strict=True))

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always predicting the most frequent class."""
        seen = np.zeros(256, np.int64)
        for part in train:
            for index in np.flatnonzero(part.usable).tolist():
                seen += np.bincount(part["mask_values"][index], minlength=256)
        guess = int(seen[: self.classes].argmax())
        truths = [held_out["mask_values"][i] for i in np.flatnonzero(held_out.usable).tolist()]
        return [self._pixels(np.full(len(truth), guess), truth) for truth in truths]


def _staged(config: Any) -> bool:
    """Return true if the model has stages of falling resolution (SegFormer); the fine ones locate edges."""
    return hasattr(config, "hidden_sizes")


def _state_width(config: Any) -> int:
    return sum(config.hidden_sizes) if _staged(config) else width_of(config)
