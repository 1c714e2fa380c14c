"""Turn a TOML file into a declaration, or into one line for each mistake in it."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from shared.errors import SettingsError
from shared.spelling import meant
from shared.study.tasks import KINDS

Declared = TypeVar("Declared", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        SettingsError: the file is missing, or is not TOML; with the place of the mistake.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"Expected a TOML file, got {path}, which is not there.", hint="Check the path.") from None
    except IsADirectoryError:
        raise SettingsError(f"Expected a TOML file, got {path}, which is a folder.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None


def parse(kind: type[Declared], declared: dict[str, Any], *, where: str) -> Declared:
    """Validate a declaration of some kind.

    Raises:
        SettingsError: one line for each mistake, with the key's path, what was expected and what came.
    """
    try:
        return kind.model_validate(declared)
    except ValidationError as error:
        lines = [_one_line(problem, kind) for problem in error.errors()]
        raise SettingsError(f"{where} is not a valid {kind.__name__.lower()}:\n  " + "\n  ".join(lines)) from None


def _keys_at(kind: Any, place: Sequence[str]) -> list[str]:
    """Return the keys that a section, or a section within it, may have."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    if not place:
        return list(kind.model_fields)
    field = kind.model_fields.get(place[0])
    # pydantic puts the kind of a section into the path, where no key of the file is called so
    return _keys_at(kind, place[1:]) if field is None else _keys_of(field.annotation, place[1:])


def _keys_of(annotation: Any, place: Sequence[str]) -> list[str]:
    """Return the keys of every section that a type admits: some keys take one of several kinds of section."""
    if get_origin(annotation) is dict:
        place = place[1:]
    parts = get_args(annotation) or (annotation,)
    return [key for part in parts for key in (_keys_of(part, place) if get_args(part) else _keys_at(part, place))]


def _one_line(problem: Any, kind: type[BaseModel]) -> str:
    # pydantic puts the kind of a task into the path, where no key of the file is called so
    path = ".".join(str(part) for part in problem["loc"] if part not in KINDS)
    if problem["type"] == "extra_forbidden":
        *place, key = (str(part) for part in problem["loc"] if part not in KINDS)
        near = meant(key, set(_keys_at(kind, place)) - {key})  # another kind of the section has it
        return f"{path}: no such key." + (f" Perhaps {near!r} is meant." if near else "")
    if problem["type"] == "missing":
        return f"{path}: missing."
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return f"{message}."
    shown = repr(problem["input"])
    return f"{path}: {message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}."
