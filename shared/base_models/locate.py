"""Locate a base model on this machine and check its fingerprint, without running anyone's code.

Weights are read from safetensors only, `trust_remote_code` is never set, and a bundled model is located
without importing the package that holds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.base_models.bundled import bundled_folder, bundled_here, bundled_sources
from shared.base_models.identity import DOWNLOADED, IDENTITY, fingerprint_of
from shared.base_models.model_folder import refuse_adapter, refuse_other_formats
from shared.errors import SettingsError
from shared.study.sections import Model, is_hub_id


@dataclass(frozen=True)
class BaseModelFiles:
    """A base model's folder on this machine, and its fingerprint."""

    directory: Path
    fingerprint: str
    """SHA-256 over weights, configuration and the files of tokenizer and processor."""
    fingerprint_version: int = 1
    """Version of the list of files that the fingerprint covers."""


def find(model: Model) -> BaseModelFiles:
    """Locate a base model and check that it is the one the study names.

    Raises:
        SettingsError: it is not there, holds no safetensors, or has another fingerprint.
    """
    directory = _directory(model)
    refuse_adapter(directory)
    fingerprint = _fingerprint(directory, model.fingerprint_version)
    if model.fingerprint is not None and model.fingerprint != fingerprint:
        raise SettingsError(
            f"Expected a base model with fingerprint {model.fingerprint}, got {fingerprint} for {model.shown_source}.",
            hint="Its files differ from those the study was written for; install the right ones.",
        )
    return BaseModelFiles(directory, fingerprint, model.fingerprint_version)


def find_by_fingerprint(fingerprint: str, folder: Path, version: int | None = None) -> BaseModelFiles:
    """Locate the base model with this fingerprint among the folders in `folder` and the installed packages.

    Args:
        fingerprint: as a study or a policy names it.
        folder: of this machine's base models.
        version: of the fingerprint, which a study says; None for any, as in a policy.

    Raises:
        SettingsError: there is none.
    """
    for base_files in on_this_machine(folder):
        if base_files.fingerprint == fingerprint and version in (None, base_files.fingerprint_version):
            return base_files
    raise SettingsError(
        f"Expected a base model with fingerprint {fingerprint[:16]}… in {folder} or installed, got none.",
        hint="Put the model's folder (config.json, tokenizer, *.safetensors) there: nothing is downloaded for a study. "
        "`fedvault-node models` lists what is there.",
    )


def on_this_machine(folder: Path) -> Iterator[BaseModelFiles]:
    """Yield every base model in `folder`, one folder each, then every installed one; hashing each takes a moment.

    Each comes once for every version of the fingerprint.
    """
    candidates = sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    for directory in [*candidates, *bundled_here()]:
        if any(directory.glob("*.safetensors")):
            yield from (BaseModelFiles(directory, _fingerprint(directory, version), version) for version in IDENTITY)


def _directory(model: Model) -> Path:
    if model.bundled_name is not None:
        return bundled_folder(model.bundled_name)
    if is_hub_id(model.source):
        return _from_hub(model.source, str(model.revision), model.fingerprint_version)
    directory = Path(model.source).expanduser()
    if not directory.is_dir():
        raise SettingsError(
            f"Expected a model folder, got model.source={model.source!r}, which is not there.",
            hint=f"Name a folder with config.json and *.safetensors, or one of: {bundled_sources()}.",
        )
    return directory


def _from_hub(source: str, revision: str, version: int) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(DOWNLOADED[version])))
    except Exception as error:  # the hub client raises a dozen unrelated kinds; all mean that the model is not here
        raise SettingsError(
            f"Expected hub model {source} at {revision}, got {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="Download it on a machine with access to the hub and set model.source to the folder.",
        ) from error


def _fingerprint(directory: Path, version: int) -> str:
    refuse_other_formats(directory)
    return fingerprint_of(directory, version)
