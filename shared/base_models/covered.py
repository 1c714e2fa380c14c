"""Refuse a model's folder in which a file that the fingerprint leaves out changes what is computed."""

from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoFeatureExtractor, AutoTokenizer

from shared.base_models.identity import NEWEST, identity_files, uncovered
from shared.base_models.model_folder import Unchanged, image_settings, state_of
from shared.errors import SettingsError

HERE: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def refuse_uncovered(directory: Path, version: int) -> None:
    """Refuse a file outside the fingerprint's version that changes how texts, images or recordings are read.

    Guarantee: under fingerprint_version 1 no file outside the fingerprint changes what is computed: a folder where one
    would is refused by the file's name.

    Args:
        directory: of the model.
        version: of its fingerprint, as the study says.

    Raises:
        SettingsError: there is such a file.
    """
    names = uncovered(directory, version)
    if names:
        _refuse_uncovered(directory, version, tuple(names), state_of(directory))


@lru_cache(maxsize=64)
def _refuse_uncovered(directory: Path, version: int, names: tuple[str, ...], _unchanged: Unchanged) -> None:
    complete = _tools(directory, without=())
    changing = [name for name in names if _tools(directory, without=(name,)) != complete]
    if not changing and len(names) > 1 and _tools(directory, without=names) != complete:
        changing = list(names)
    if changing:
        raise SettingsError(
            f"Expected no file outside the fingerprint that changes how the base model in {directory} reads its "
            f"inputs, got {', '.join(changing)} with model.fingerprint_version={version}.",
            hint=f"Set model.fingerprint_version = {NEWEST} in the study, whose fingerprint covers it; or delete the "
            "file, if the model should be read without it.",
        )


def _tools(directory: Path, *, without: Collection[str]) -> list[Any]:
    """Return what the model's tokenizer and processors are, read from the folder without some of its files."""
    with TemporaryDirectory() as scratch:
        view = Path(scratch) / "model"
        for name, path in identity_files(directory, NEWEST).items():
            if name not in without and path.suffix != ".safetensors":
                (view / name).parent.mkdir(parents=True, exist_ok=True)
                (view / name).symlink_to(path.resolve())
        saved = Path(scratch) / "saved"
        return [
            _or_its_fault(lambda: _saved(AutoTokenizer.from_pretrained(view, **HERE), saved, scratch)),
            _or_its_fault(lambda: AutoFeatureExtractor.from_pretrained(view, **HERE).to_dict()),
            _or_its_fault(lambda: image_settings(view)),
        ]


def _saved(tokenizer: Any, folder: Path, scratch: str) -> dict[str, Any]:
    """Return names and contents of the files that a tokenizer writes, wherever it was read."""
    files = tokenizer.save_pretrained(folder)
    return {Path(file).name: Path(file).read_bytes().replace(scratch.encode(), b"") for file in files}


def _or_its_fault(read: Callable[[], Any]) -> Any:
    """Return what is read, or the kind of fault: whatever cannot be read either way is refused where it is needed."""
    try:
        return read()
    except Exception as error:  # each library has its own kinds
        return type(error)
