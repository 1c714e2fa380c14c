"""Image classification: one image, one label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.base_models.load import read_config
from shared.base_models.locate import BaseModelFiles
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.images import (
    ImageFormat,
    MediaError,
    as_seen,
    file_of,
    image_format_of,
    image_notes,
    open_image,
    patches,
    positions,
    synthetic_pixels,
)
from shared.tasks.kind import Column, Rows, strings
from shared.tasks.single_label import OneLabelKind, mean_of_tokens
from shared.tasks.stored_images import file_notes


class ImageClassification(OneLabelKind):
    """The kind `image-classification`."""

    columns = (Column("image", media=True), Column("label"))
    reads = ("pixels",)
    image_format: ImageFormat
    positions: dict[str, bool]

    def __init__(self, task: declarations.ImageClassification) -> None:
        super().__init__(task.labels)
        self.task = task
        self.fills = {"pixels": None, "target": None}

    def processor(self, base_files: BaseModelFiles) -> ImageFormat:
        """Read how the base model wants its images."""
        return image_processor(base_files, self.task.image_size)

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode pixels and label; a row with an unreadable or too large image or an unknown label cannot be used."""
        images, problems = encode_images(rows["image"], processor)
        targets, unknown = self.targets(strings(rows["label"]))
        usable = [image is not None and target >= 0 for image, target in zip(images, targets, strict=True)]
        fields = {"pixels": pixel_field(images, processor), "target": ragged(targets, np.int64)}
        return Encoded(Records(fields, np.array(usable, dtype=bool)), (*problems, *unknown))

    def adapt(self, base: nn.Module) -> None:
        """Read the size of images and patches from the study and the base model, without changing it."""
        self.image_format = image_format_of(Path(str(base.name_or_path)), base.config, side=self.task.image_size)
        self.positions = positions(base, self.image_format.size)
        rows, columns = patches(base.config, self.image_format.size)
        self.fixed_tokens = rows * columns

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """Compute the states of the patches and of any tokens before them (records, tokens, width)."""
        states: Tensor = base(pixel_values=image_input(batch, self.image_format), **self.positions).last_hidden_state
        return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Average over the patches, scaled to one length; class tokens come first, and are not always pretrained."""
        del batch
        return mean_of_tokens(states[:, -self.fixed_tokens :])

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random pixels, with labels in turn."""
        del config
        size = self.image_format.channels * self.image_format.size[0] * self.image_format.size[1]
        targets = [self.goal.synthetic(n + (variant if n == 0 else 0)) for n in range(len(lengths))]
        fields = {
            "pixels": ragged(synthetic_pixels(len(lengths), size, variant=variant), np.uint8),
            "target": ragged(targets, np.int64),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))


def image_processor(base_files: BaseModelFiles, side: int | None) -> ImageFormat:
    """Read how the base model in this folder wants its images; `side` is the study's choice of their size."""
    config = read_config(base_files)
    return image_format_of(base_files.directory, config, side=side)


def image_input(batch: Batch, image_format: ImageFormat) -> Tensor:
    """Return the model's input: normalised pixels, or the states at a cut."""
    return batch["states"] if "states" in batch else image_format.normalised(batch["pixels"])


def encode_images(cells: Sequence[Any], image_format: ImageFormat) -> tuple[list[Any], list[Problem]]:
    """Return the pixels of each image, None for one that cannot be used, and the problems."""
    images: list[Any] = []
    problems = []
    for row, cell in enumerate(cells):
        try:
            content = file_of(cell)
            image = open_image(content, as_it_is=True)
            images.append(image_format.pixels(as_seen(image)))
            problems += [Problem(row, note) for note in (*image_notes(image), *file_notes(content, image))]
        except MediaError as error:
            images.append(None)
            problems.append(Problem(row, f"its image {error}"))
    return images, problems


def pixel_field(images: Sequence[Any], image_format: ImageFormat) -> Any:
    """Pack the pixels of images; a missing image becomes black."""
    black = np.zeros(image_format.channels * image_format.size[0] * image_format.size[1], np.uint8)
    return ragged([black if image is None else image for image in images], np.uint8)
