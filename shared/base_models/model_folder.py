"""Check the files of a base model's folder before a library opens them: each unfit one is refused by name.

Nothing here depends on the task. Whether the weights fit the model that a task builds is checked by `loaded_keys`.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from shared.base_models.identity import INDEX
from shared.errors import SettingsError

CONFIG, TOKENIZER_CONFIG, PREPROCESSOR = "config.json", "tokenizer_config.json", "preprocessor_config.json"
ADAPTER = "adapter_config.json"
PROCESSOR = "processor_config.json"
WEIGHTS = "model.safetensors"
OTHER_FORMATS = ("*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.pkl", "*.npz")
FLOATS = ("F64", "F32", "F16", "BF16")
PACKED = ("I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2")
"""Number formats of quantised weights; a model's own whole numbers, such as those of positions, have others."""
MASKS = (".attn.bias", ".attn.masked_bias")
"""Ends of the names of buffers in old decoders, whose ones and zeros are no weights."""
IN_A_LAYER = re.compile(r"\.\d+\..*\.weight$")
RENAMED = "save the model again with transformers: model.save_pretrained(folder, safe_serialization=True)"
LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "n_layer",
    "n_layers",
)
MOST_LAYERS = 1_000
"""More would be built one by one, for minutes or for ever, before anybody sees that their weights are missing."""
Unchanged = tuple[tuple[str, int, int], ...]


def refuse_adapter(directory: Path) -> None:
    """Refuse a folder with an adapter, which would be loaded on top of the base model or in its place.

    Raises:
        SettingsError: there is one.
    """
    if (directory / ADAPTER).exists():
        raise SettingsError(
            f"Expected a base model in {directory}, got an adapter: there is {ADAPTER}.",
            hint="Name the model that the adapter was trained on, or merge the two into one folder first.",
        )


def refuse_other_formats(directory: Path) -> None:
    """Refuse a folder without safetensors, and name the weights that are there instead.

    Raises:
        SettingsError: there are none.
    """
    if not any(directory.glob("*.safetensors")):
        others = sorted({path.name for pattern in OTHER_FORMATS for path in directory.glob(pattern)})
        raise SettingsError(
            f"Expected *.safetensors in {directory}, got {', '.join(others[:3]) or 'none'}.",
            hint=f"Other formats can run code when they are loaded, or hold quantised weights; {RENAMED}.",
        )


def state_of(directory: Path) -> Unchanged:
    """Return names, sizes and times of a folder's files: what was checked need not be again while they are the same."""
    stats = sorted((path.name, path.stat()) for path in directory.iterdir() if path.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def check_folder(directory: Path) -> None:
    """Refuse a folder whose files are no base model of plain weights; the same files are read only once.

    Raises:
        SettingsError: configuration, index or weights are missing, damaged, quantised, custom code or not finite.
    """
    _check_folder(directory, state_of(directory))


@lru_cache(maxsize=64)
def _check_folder(directory: Path, _unchanged: Unchanged) -> None:
    refuse_adapter(directory)
    _check_config(directory)
    refuse_other_formats(directory)
    for path, keys in weight_files(directory).items():
        _check_weights(path, keys)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SettingsError: the file holds none.
    """
    try:
        declared = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"Expected {path.name} in {path.parent}, got {type(error).__name__}.") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"Expected JSON in {path}, got text that is none: {str(error).splitlines()[0]}.",
            hint="The file is damaged; copy the model's folder again.",
        ) from None
    if not isinstance(declared, dict):
        raise SettingsError(f"Expected a JSON object in {path}, got a {type(declared).__name__}.")
    return declared


def image_settings(directory: Path) -> Mapping[str, Any]:
    """Return how a model's folder says that images are prepared; nothing if no file says it.

    Raises:
        SettingsError: a file holds no JSON object.
    """
    nested = read_json(directory / PROCESSOR).get("image_processor") if (directory / PROCESSOR).is_file() else None
    if isinstance(nested, dict):  # as newer versions of transformers save a model of images and texts
        return nested
    return read_json(directory / PREPROCESSOR) if (directory / PREPROCESSOR).is_file() else {}


def refuse_custom_code(path: Path, declared: Mapping[str, Any]) -> None:
    """Refuse a file that asks for program code from the model's own folder.

    Raises:
        SettingsError: it does.
    """
    if declared.get("auto_map"):
        raise SettingsError(
            f"Expected a model without code of its own, got auto_map in {path}.",
            hint="Such code is never run here. If transformers itself knows the model type, delete auto_map.",
        )


def _check_config(directory: Path) -> None:
    path = directory / CONFIG
    if not path.is_file():
        raise SettingsError(
            f"Expected {CONFIG} in {directory}, got none.", hint="Copy the whole folder of the model, not only weights."
        )
    config = read_json(path)
    refuse_custom_code(path, config)
    if config.get("quantization_config"):
        raise SettingsError(
            f"Expected a model with weights in full precision, got quantization_config in {path}.",
            hint="Take the model that it was quantised from: gradients of quantised weights are not exact.",
        )
    if config.get("transformers_weights"):
        raise SettingsError(f"Expected weights in {WEIGHTS}, got transformers_weights in {path}.", hint=RENAMED)
    if config.get("configuration_files"):
        raise SettingsError(
            f"Expected one configuration, got configuration_files in {path}.",
            hint=f"Which one is read depends on the version of transformers: keep one as {CONFIG}, and delete the key.",
        )
    deep = [name for name in LAYERS if isinstance(config.get(name), int | float) and config[name] > MOST_LAYERS]
    if deep:
        raise SettingsError(
            f"Expected at most {MOST_LAYERS:,} layers in {path}, got {deep[0]}={config[deep[0]]}.",
            hint="Configuration and weights do not belong together; copy both from the same model.",
        )
    if not isinstance(config.get("model_type"), str):
        raise SettingsError(
            f"Expected model_type in {path}, got {config.get('model_type')!r}.",
            hint="The file is not that of a transformers model.",
        )


def weight_files(directory: Path) -> dict[Path, set[str] | None]:
    """Return the files that hold the weights, and the names that the index expects in each; None without an index.

    Raises:
        SettingsError: the folder has neither one file of weights nor an index with all its parts.
    """
    if (directory / WEIGHTS).is_file():
        return {directory / WEIGHTS: None}
    path = directory / INDEX
    if not path.is_file():
        names = ", ".join(sorted(file.name for file in directory.glob("*.safetensors"))[:3])
        raise SettingsError(
            f"Expected {WEIGHTS} or {INDEX} in {directory}, got {names}.", hint=f"Rename it, or {RENAMED}."
        )
    parts = read_json(path).get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise SettingsError(f"Expected a weight_map of names to files in {path}, got none.", hint=RENAMED)
    files = {name: {key for key, part in parts.items() if part == name} for name in sorted(set(parts.values()))}
    absent = [name for name in files if Path(name).name != name or not (directory / name).is_file()]
    if absent:
        raise SettingsError(
            f"Expected all {len(files)} files that {path} names, got none for {', '.join(absent[:3])}.",
            hint="Copy the missing files into the folder.",
        )
    return {directory / name: keys for name, keys in files.items()}


def names_of_weights(directory: Path) -> set[str]:
    """Return the names of all weights in a folder that was checked."""
    names = set[str]()
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as opened:
            names.update(opened.keys())
    return names


def _check_weights(path: Path, expected: set[str] | None) -> None:
    try:
        with safe_open(path, framework="pt") as opened:
            names = set(opened.keys())
            formats = {name: opened.get_slice(name).get_dtype() for name in names}
            broken, empty = _damaged(opened, formats)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"Expected safetensors in {path}, got a damaged or truncated file: {str(error).splitlines()[0]}.",
            hint="Copy or download it again, and compare its size.",
        ) from None
    if not names:
        raise SettingsError(f"Expected weights in {path}, got none.", hint=RENAMED)
    if expected is not None and names != expected:
        odd = min(names ^ expected)
        raise SettingsError(
            f"Expected in {path} what {INDEX} says, got a difference at {odd}.",
            hint="Index and parts do not belong together; copy the model's folder again.",
        )
    quantised = sorted(n for n, kind in formats.items() if kind in PACKED and not n.endswith(MASKS))
    integers = sorted(n for n, k in formats.items() if n.endswith((".weight", ".bias")) and k not in (*FLOATS, *PACKED))
    integers = [name for name in integers if not name.endswith(MASKS)]
    if integers:
        raise SettingsError(
            f"Expected weights of real numbers in {path}, got {formats[integers[0]]} in {integers[0]}.", hint=RENAMED
        )
    if quantised:
        raise SettingsError(
            f"Expected weights in full precision in {path}, got {formats[quantised[0]]} (quantised) in {quantised[0]}.",
            hint="Take the model that it was quantised from: gradients of quantised weights are not exact.",
        )
    if broken:
        raise SettingsError(
            f"Expected finite weights in {path}, got NaN or infinity in {broken}.",
            hint="The model was damaged when it was trained, converted or saved; take another copy.",
        )
    if empty:
        raise SettingsError(
            f"Expected weights in {path}, got nothing but zeros in {empty}.",
            hint="A download that broke off leaves zeros; copy or download the file again.",
        )


def _damaged(opened: Any, formats: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name a weight that is no number somewhere, and a layer's matrix of zeros; one tensor at a time is in memory."""
    broken, empty = None, None
    for name in sorted(formats):
        if formats[name] not in FLOATS or name.endswith(MASKS):
            continue
        weight = opened.get_tensor(name)
        if not weight.numel():
            continue
        smallest, largest = torch.aminmax(weight)  # one pass without a copy; both are NaN where any value is
        if not (torch.isfinite(smallest) and torch.isfinite(largest)):
            broken = broken or name
        elif weight.dim() == 2 and IN_A_LAYER.search(name) and not smallest and not largest:
            empty = empty or name
    return broken, empty
