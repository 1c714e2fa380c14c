"""image-classification: one image, one label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from shared.base_models.locate import BaseModelFiles
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.images import Framing, MediaError, framing, opened, patches, synthetic_pixels
from shared.tasks.kind import Column, Rows, strings
from shared.tasks.single_label import OneLabelKind, mean_of_tokens


class ImageClassification(OneLabelKind):
    """The kind `image-classification`."""

    columns = (Column("image", media=True), Column("label"))
    reads = ("pixels",)
    framing: Framing

    def __init__(self, task: declarations.ImageClassification) -> None:
        super().__init__(task.labels)
        self.task = task
        self.fills = {"pixels": None, "target": None}

    def processor(self, base_files: BaseModelFiles) -> Framing:
        """How the base model wants its images."""
        return image_processor(base_files)

    def encode(self, rows: Rows, processor: Any) -> Encoded:
        """Pixels and the label; an image that is missing, broken or too large, or an unknown label, cannot be used."""
        images, problems = encode_images(rows["image"], processor)
        targets, unknown = self.targets(strings(rows["label"]))
        usable = [image is not None and target >= 0 for image, target in zip(images, targets, strict=True)]
        fields = {"pixels": pixel_field(images, processor), "target": ragged(targets, np.int64)}
        return Encoded(Records(fields, np.array(usable, dtype=bool)), (*problems, *unknown))

    def adapt(self, base: nn.Module) -> None:
        """Learn from the base model how it sees; nothing about it is changed."""
        self.framing = framing(Path(str(base.name_or_path)), base.config)
        rows, columns = patches(base.config, self.framing.size)
        self.fixed_tokens = rows * columns

    def run(self, base: nn.Module, batch: Batch) -> Tensor:
        """States of the patches and whatever stands before them (records, tokens, width)."""
        states: Tensor = base(pixel_values=seen(batch, self.framing)).last_hidden_state
        return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Mean over patches, of one length: class tokens come first, and not every pretraining trains them."""
        del batch
        return mean_of_tokens(states[:, -self.fixed_tokens :])

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Random pixels; labels in turn."""
        del config
        size = self.framing.channels * self.framing.size[0] * self.framing.size[1]
        targets = [self.goal.synthetic(n + (variant if n == 0 else 0)) for n in range(len(lengths))]
        fields = {
            "pixels": ragged(synthetic_pixels(len(lengths), size, variant=variant), np.uint8),
            "target": ragged(targets, np.int64),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))


def image_processor(base_files: BaseModelFiles) -> Framing:
    """How the base model in this folder wants its images."""
    found = AutoConfig.from_pretrained(base_files.directory, trust_remote_code=False, local_files_only=True)
    return framing(base_files.directory, found)


def seen(batch: Batch, framed: Framing) -> Tensor:
    """What the model is given: pixels as it wants them, or the states at a cut."""
    return batch["states"] if "states" in batch else framed.normalised(batch["pixels"])


def encode_images(cells: Sequence[Any], framed: Framing) -> tuple[list[Any], list[Problem]]:
    """Pixels of each image, None for one that cannot be used, and why."""
    images: list[Any] = []
    problems = []
    for row, cell in enumerate(cells):
        try:
            images.append(framed.pixels(opened(cell)))
        except MediaError as error:
            images.append(None)
            problems.append(Problem(row, f"its image {error}"))
    return images, problems


def pixel_field(images: Sequence[Any], framed: Framing) -> Any:
    """Pack pixels, black ones where there is no image."""
    black = np.zeros(framed.channels * framed.size[0] * framed.size[1], np.uint8)
    return ragged([black if image is None else image for image in images], np.uint8)
