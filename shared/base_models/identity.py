"""Name the files that make a base model what it is: its fingerprint covers them, and loaders read no others.

Version 1 of the identity left some of them out. Studies of that version keep their fingerprints: a file that it leaves
out must change nothing, or the folder is refused (`uncovered`).
"""

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path

from shared.errors import SettingsError
from shared.files import files_sha256

INDEX = "model.safetensors.index.json"
IDENTITY: dict[int, tuple[str, ...]] = {
    1: (
        "*.safetensors", "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template*", "vocab*", "merges.txt", "*.model",
    ),
}  # fmt: skip
"""Patterns of names below a model's folder, by version."""
IDENTITY[2] = (
    *IDENTITY[1], INDEX, "special_tokens_map.json", "added_tokens.json", "processor_config.json", "*.spm", "bpe.codes",
    "normalizer.json", "tekken.json", "emoji.json", "entity_vocab.json", "target_vocab.json", "byte_maps.json",
    "dict.txt", "prophetnet.tokenizer", "word_pronunciation.json", "word_shape.json",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
NEWEST = max(IDENTITY)
DOWNLOADED = {version: (*patterns, INDEX) for version, patterns in IDENTITY.items()}
"""Patterns of what is downloaded from a hub: weights in parts need their index. It can change nothing, since an index
that says anything else than the parts hold is refused."""


def identity_files(directory: Path, version: int) -> dict[str, Path]:
    """Return the files of a model's folder that this version of its fingerprint covers, by name, sorted."""
    below = [*directory.glob("*"), *directory.glob("additional_chat_templates/*")]
    named = {path.relative_to(directory).as_posix(): path for path in sorted(below)}
    return {name: path for name, path in named.items() if _matches(name, IDENTITY[version])}


def uncovered(directory: Path, version: int) -> list[str]:
    """Return the names of files that a loader may read, and that this version of the fingerprint leaves out."""
    covered = identity_files(directory, version)
    return [name for name in identity_files(directory, NEWEST) if name not in covered and name != INDEX]


def fingerprint_of(directory: Path, version: int) -> str:
    """Return the SHA-256 over the names and contents of the files that this version covers.

    Guarantee: from fingerprint_version 2 on, a base model's fingerprint covers every file that is read of its folder:
    each changed byte changes the fingerprint, is refused, or stands in a file that nothing reads.

    Raises:
        SettingsError: one cannot be read.
    """
    files = identity_files(directory, version)
    try:
        hashes = files_sha256(files.values())
    except OSError as error:
        raise SettingsError(f"Expected a model file, got {error.filename}, which cannot be read.") from None
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(hashes, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    # a star stands for no slash: what lies in other folders is never read
    return any(name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns)
