"""English and German messages of four programs: sentences and phrases that people translated, each program a site."""

import struct
import zipfile
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages

MAGIC = 0x950412DE
HEADER = struct.Struct("<7I")
LANGUAGE = "/locale/de/LC_MESSAGES/"
PROJECTS = {"django": "django", "wagtail": "wagtail", "oscar": "django_oscar", "cms": "django_cms"}
CONTEXT, PLURAL = "\x04", "\x00"
SOURCE_NOTE = """# Messages of four programs, English and German

What the programs Django 5.2.19, Wagtail 8.0.1, django-oscar 4.2.1 and django CMS 5.1.3 say to their users, and what
volunteers made of it in German: the message catalogues (.mo) in their packages, all BSD-3-Clause. Placeholders such as
%(name)s stay; messages that are the same in both languages are left out, and so is each pair after its first time.
"""


def build(folder: Path) -> None:
    """Write translations.csv: source (English), target (German), project."""
    with packages("translations") as wheels:
        tables = [_project(wheels, project, package) for project, package in PROJECTS.items()]
    table = pd.concat(tables, ignore_index=True).drop_duplicates(["source", "target"])
    table.to_csv(folder / "translations.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def read_catalogue(content: bytes) -> list[tuple[str, str]]:
    """Read the pairs of a compiled message catalogue; of plural forms the first.

    Raises:
        DataError: it is not a little-endian .mo file.
    """
    try:
        magic, _, count, originals, translated, *_ = HEADER.unpack_from(content)
        if magic != MAGIC:
            raise DataError(f"Expected a message catalogue, got a file that starts with {magic:#x}.")
        pairs = [
            (_text(content, originals + 8 * index), _text(content, translated + 8 * index)) for index in range(count)
        ]
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError("Expected a message catalogue, got a damaged one.", hint=str(error)) from None
    clean = [(source.split(CONTEXT)[-1].split(PLURAL)[0], target.split(PLURAL)[0]) for source, target in pairs]
    tidy = [(" ".join(source.split()), " ".join(target.split())) for source, target in clean]
    return [(source, target) for source, target in tidy if source and target and source != target]


def _text(content: bytes, at: int) -> str:
    length, offset = struct.unpack_from("<2I", content, at)
    return content[offset : offset + length].decode()


def _project(wheels: Path, project: str, package: str) -> pd.DataFrame:
    wheel = next(wheels.glob(f"{package}-[0-9]*.whl"), None)
    if wheel is None:
        raise DataError(f"Expected a wheel of {package}, got none.")
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if LANGUAGE in name and name.endswith(".mo"))
        pairs = [pair for name in names for pair in read_catalogue(archive.read(name))]
    return pd.DataFrame(pairs, columns=["source", "target"]).assign(project=project)
