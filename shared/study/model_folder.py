"""Finds a study's base model: a folder that a file names is relative to that file."""

import os
import re
from pathlib import Path
from typing import Any

from shared.errors import SettingsError
from shared.study.sections import is_hub_id

NAMED = re.compile(r"[a-z]+:")


def name_model_beside(folder: Path, declared: dict[str, Any]) -> None:
    """Rewrite the base model's folder, which a file in `folder` names, so that it is found from the current folder.

    Args:
        folder: of the file.
        declared: what the file says, not validated yet; changed in place.

    Raises:
        SettingsError: the model's folder is in the current folder alone.
    """
    model = declared.get("model")
    if isinstance(model, dict) and isinstance(source := model.get("source"), str) and "revision" not in model:
        model["source"] = _beside(folder, source)


def is_name(source: str) -> bool:
    """Return whether a source is no relative path: `bundled:minilm`, say, or a path that begins at a root or a home."""
    return NAMED.match(source) is not None or Path(source).is_absolute() or source.startswith("~")


def elsewhere(key: str, source: str, folder: Path) -> SettingsError:
    """Return the error about a path that is in the current folder, but not beside the file that names it."""
    return SettingsError(
        f"Expected {key} relative to the file that names it, got {source!r}, which is not in {folder.resolve()}.",
        hint=f"It is in the current folder: write {os.path.relpath(source, folder)!r} in the file.",
    )


def _beside(folder: Path, source: str) -> str:
    """Return the model's folder, in one spelling for one folder, since studies are known by it."""
    if is_name(source):
        return source
    beside, here = folder / source, Path(source)
    if not beside.exists() and here.exists():
        raise elsewhere("model.source", source, folder)
    if not beside.exists() and is_hub_id(source):
        return source
    if here.exists() and here.samefile(beside):
        return source
    inside = os.path.relpath(beside)
    return str(beside) if inside.startswith(".") else inside
