"""Locate a base model on this machine and check its fingerprint, without running anyone's code.

Weights are read from safetensors only, `trust_remote_code` is never set, and a bundled model is located
without importing the package that holds it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from shared.base_models.bundled import bundled_folder, bundled_here, bundled_sources
from shared.base_models.model_folder import refuse_adapter, refuse_other_formats
from shared.errors import SettingsError
from shared.files import files_sha256
from shared.study.sections import Model, is_hub_id

IDENTITY_FILES = (
    "*.safetensors", "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json", "chat_template*", "vocab*", "merges.txt", "*.model",
)  # fmt: skip


@dataclass(frozen=True)
class BaseModelFiles:
    """A base model's folder on this machine, and its fingerprint."""

    directory: Path
    fingerprint: str
    """SHA-256 over weights, configuration and tokenizer files."""


def find(model: Model) -> BaseModelFiles:
    """Locate a base model and check that it is the one the study names.

    Raises:
        SettingsError: it is not there, holds no safetensors, or has another fingerprint.
    """
    directory = _directory(model)
    refuse_adapter(directory)
    fingerprint = _fingerprint(directory)
    if model.fingerprint is not None and model.fingerprint != fingerprint:
        raise SettingsError(
            f"Expected a base model with fingerprint {model.fingerprint}, got {fingerprint} for {model.shown_source}.",
            hint="The weights differ from those the study was written for; install the right ones.",
        )
    return BaseModelFiles(directory, fingerprint)


def find_by_fingerprint(fingerprint: str, folder: Path) -> BaseModelFiles:
    """Locate the base model with this fingerprint among the folders in `folder` and the installed packages.

    Raises:
        SettingsError: there is none.
    """
    for base_files in on_this_machine(folder):
        if base_files.fingerprint == fingerprint:
            return base_files
    raise SettingsError(
        f"Expected a base model with fingerprint {fingerprint[:16]}… in {folder} or installed, got none.",
        hint="Put the model's folder (config.json, tokenizer, *.safetensors) there: nothing is downloaded for a study. "
        "`fedvault-node models` lists what is there.",
    )


def on_this_machine(folder: Path) -> Iterator[BaseModelFiles]:
    """Yield every base model in `folder`, one folder each, then every installed one; hashing each takes a moment."""
    candidates = sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    for directory in [*candidates, *bundled_here()]:
        if any(directory.glob("*.safetensors")):
            yield BaseModelFiles(directory, _fingerprint(directory))


def _directory(model: Model) -> Path:
    if model.bundled_name is not None:
        return bundled_folder(model.bundled_name)
    if is_hub_id(model.source):
        return _from_hub(model.source, str(model.revision))
    directory = Path(model.source).expanduser()
    if not directory.is_dir():
        raise SettingsError(
            f"Expected a model folder, got model.source={model.source!r}, which is not there.",
            hint=f"Name a folder with config.json and *.safetensors, or one of: {bundled_sources()}.",
        )
    return directory


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
    refuse_other_formats(directory)
    files = sorted(p for p in directory.iterdir() if any(fnmatch(p.name, pattern) for pattern in IDENTITY_FILES))
    try:
        hashes = files_sha256(files)
    except OSError as error:
        raise SettingsError(f"Expected a model file, got {error.filename}, which cannot be read.") from None
    lines = "".join(f"{digest}  {path.name}\n" for digest, path in zip(hashes, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()
