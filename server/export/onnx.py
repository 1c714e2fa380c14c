"""Writes a finished model as ONNX, with the adapter in its weights: for ONNX Runtime, Triton, or a phone.

No file is left that computes something else than the model: it is compared on records of three shapes first.
"""

import io
import shutil
import warnings
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from server.export.adapter import PROCESSOR_FILES
from server.export.served_card import onnx_in_words, write_served_card
from shared.adapted_model.finished import STUDY_FILE, load_finished
from shared.adapted_model.model import AdaptedModel
from shared.base_models.four_bits import widen
from shared.errors import RunError, SettingsError
from shared.files import write_atomically
from shared.records.batches import Batch, collate

MODEL_FILE = "model.onnx"
TOLERANCE = 1e-4
"""The largest difference between any two outputs, times the largest output where that is above 1."""
OPSET = 17
INPUTS = {
    "sequence-classification": ("ids", "mask", "types"),
    "token-classification": ("ids", "mask"),
    "image-classification": ("pixels",),
    "audio-classification": ("sound",),
}
"""Fields that the model reads, by kind of task; what a task has none of is left out."""
NAMES = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
"""What tokenizers call them."""


class Served(nn.Module):
    """A model with its inputs by place, as an exported graph has them."""

    def __init__(self, model: AdaptedModel, fields: Sequence[str]) -> None:
        super().__init__()
        self._model, self._fields = model, tuple(fields)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the task's outputs (records, …)."""
        outputs: Tensor = self._model(dict(zip(self._fields, inputs, strict=True)))
        return outputs


def write_onnx(exported: Path, folder: Path) -> float:
    """Write model.onnx with the tokenizer or processor, the study and a card of its own beside it.

    A base model that was held in short numbers is written with what these stand for, and computes in float32.

    Args:
        exported: as `adapter.export` wrote it.
        folder: new; left away if the graph computes something else.

    Returns:
        The largest difference to the model that was seen.

    Raises:
        SettingsError: ONNX is not installed, or the task is none whose outputs are one pass of the model.
        RunError: the graph does not compute what the model does.
    """
    require_onnx()
    finished = load_finished(exported)
    kind = finished.study.task.kind
    if kind not in INPUTS:
        raise SettingsError(
            f"Expected a task of kind {', '.join(INPUTS)}, got task.kind={kind!r}.",
            hint="A text that is generated takes many passes: export --merge, and serve the folder.",
        )
    model = _in_float32(finished.model)
    examples = [_example(model, shape) for shape in ((8,), (5, 24), (3, 9, 17, 16, 1))]
    fields = [name for name in INPUTS[kind] if name in examples[0]]
    with torch.no_grad():
        expected = [model(batch).numpy() for batch in examples]
    content = _graph(_merged(model), fields, examples[1])
    worst = max(_difference(content, batch, fields, outputs) for batch, outputs in zip(examples, expected, strict=True))
    if worst > TOLERANCE:
        raise RunError(
            f"Expected a graph whose outputs differ by at most {TOLERANCE:g}, got {worst:.2g}; nothing was written.",
            hint="export --merge writes the same model for transformers.",
        )
    folder.mkdir(parents=True)
    write_atomically(folder / MODEL_FILE, content)
    for path in sorted(model.base_files.directory.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in PROCESSOR_FILES):
            shutil.copy(path, folder / path.name)
    shutil.copy(exported / STUDY_FILE, folder / STUDY_FILE)
    write_served_card(exported, folder, library="onnx", how=onnx_in_words(finished.study, _inputs(content)))
    return worst


def require_onnx() -> None:
    """Refuse to write ONNX without the libraries that do it.

    Raises:
        SettingsError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"Expected onnx and onnxruntime, got no {error.name}.", hint="pip install 'fedvault[onnx]'"
        ) from None


def _example(model: AdaptedModel, lengths: Sequence[int]) -> Batch:
    """Return records of these lengths from a public generator, as far as the model reads so long ones."""
    most = getattr(getattr(model.kind, "task", None), "max_length", max(lengths))
    records = model.kind.synthetic(model.config, [min(length, most) for length in lengths], variant=0)
    batch = collate(records, range(len(records)), model.kind.fills, torch.device("cpu"))
    return {name: tensor.long() if name in ("ids", "types") else tensor for name, tensor in batch.items()}


def _in_float32(model: AdaptedModel) -> AdaptedModel:
    if model.base_weights != "float32":
        widen(model)
        model.base_weights = "float32"
    return model


def _merged(model: AdaptedModel) -> AdaptedModel:
    """Put the adapter into the base model's weights, and attention into plain operations."""
    peft = model.peft_model()
    if peft is not None:
        merge: Any = peft
        merge.merge_adapter()
    base: Any = model.base
    inner = base.get_base_model() if peft is not None else base
    inner.set_attn_implementation("eager")
    return model


def _graph(model: AdaptedModel, fields: Sequence[str], batch: Batch) -> bytes:
    names = [NAMES.get(name, name) for name in fields]
    texts = "mask" in fields
    axes = {name: {0: "records", 1: "tokens"} if texts else {0: "records"} for name in names} | {
        "outputs": {0: "records"}
    }
    target: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: what it may have fixed is what the comparison is for
        torch.onnx.export(
            Served(model, fields),
            tuple(batch[name] for name in fields),
            target,
            input_names=names,
            output_names=["outputs"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return bytes(target.getvalue())


def _inputs(content: bytes) -> list[tuple[str, str, Sequence[object]]]:
    """Return name, type and shape of all that a graph reads."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [(one.name, one.type, one.shape) for one in session.get_inputs()]


def _difference(content: bytes, batch: Batch, fields: Sequence[str], expected: Any) -> float:
    """Return how far the graph's outputs are from the model's, in units of the largest output or of 1."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {NAMES.get(name, name): batch[name].numpy() for name in fields})
    except Exception:  # it has no class of its own for them: a graph that does not run is not the model
        return float("inf")
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return float("inf")
    return float(np.abs(outputs - expected).max() / max(1.0, np.abs(expected).max()))
