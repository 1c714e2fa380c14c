"""Turn a TOML file into a declaration, or into one line for each mistake in it."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import SettingsError
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None


def parse(kind: type[Declared], declared: dict[str, Any], *, where: str) -> Declared:
    """Validate a declaration of some kind.

    Raises:
        SettingsError: one line for each mistake, with the key's path, what was expected and what came.
    """
    try:
        return kind.model_validate(declared)
    except ValidationError as error:
        lines = [_one_line(problem) for problem in error.errors()]
        raise SettingsError(f"{where} is not a valid {kind.__name__.lower()}:\n  " + "\n  ".join(lines)) from None


def _one_line(problem: Any) -> str:
    # pydantic puts the kind of a task into the path, where no key of the file is called so
    path = ".".join(str(part) for part in problem["loc"] if part not in KINDS)
    if problem["type"] == "extra_forbidden":
        return f"{path}: no such key."
    if problem["type"] == "missing":
        return f"{path}: missing."
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return f"{message}."
    shown = repr(problem["input"])
    return f"{path}: {message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}."
