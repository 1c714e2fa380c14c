"""Which record a row is, and which half of the data it falls into: by version 1, as the first nodes did, and today."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from pydantic import TypeAdapter

from client.vault.ledger.record_index import RecordIndex
from client.vault.records.snapshot import SplitRule
from client.vault.records.splits import splits_of
from shared.records.tables import columns_of, content_columns, identity, read_table
from shared.study.tasks import KINDS, MEDIA, Task
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table
from tests.support.task_examples import EXAMPLES, write_example

KEY = bytes(range(32))


class Identity(NamedTuple):
    """What a node makes of a table before it looks into any record."""

    indexed: str
    """Columns whose cells say which record it is: they enter the record index."""
    index: str
    """Start of a hash over the identities in the record index, row by row."""
    contents: str
    """Start of a hash over everything that decides a row's split."""
    splits: str
    """T for a row that trains, H for one that is held out."""


RECORDED: dict[str, Identity] = {
    "sequence-classification": Identity("text text_pair", "d8e6d20783a9cabe", "433c8815efeced60", "THTHTT"),
    "token-classification": Identity("tokens", "532ee465f64466b4", "73b56abb02913c7c", "TTHHHH"),
    "question-answering": Identity("context question", "7148ad21a4598711", "45b2432f18b49010", "THTHHT"),
    "masked-lm": Identity("text", "1278bb15086092a1", "cd14d453b117584c", "HTTHTT"),
    "causal-lm": Identity("prompt response", "36055fb88750402b", "ebad979674228248", "TTHHTT"),
    "seq2seq": Identity("source target", "9f78906336379580", "d3270ebd897bffe5", "TTHHTT"),
    "image-classification": Identity("image", "f63f1289fe2c834b", "3b420165af68dbda", "TTTTTH"),
    "semantic-segmentation": Identity("image", "f63f1289fe2c834b", "35bd002c9d44eaf6", "THTTTH"),
    "audio-classification": Identity("audio", "f63f1289fe2c834b", "3b420165af68dbda", "TTTTTH"),
    "speech-recognition": Identity("audio", "f63f1289fe2c834b", "c2fb614bdc36059a", "TTHTHT"),
    "recommendation": Identity("text", "7b8540e98547d850", "138f6d4fd65ac7f2", "THTTTT"),
    "multi-task": Identity("context question text tokens", "be32f9861daa8f83", "91d6e2762fb9879c", "HTTHTT"),
}


TODAY: dict[str, tuple[str, str]] = {
    "sequence-classification": ("f163c896cfcccae0", "THTTHT"),
    "token-classification": ("4c6c8a8ded676154", "TTTTHT"),
    "question-answering": ("4f62c25bc38fa30e", "TTTHTH"),
    "masked-lm": ("1278bb15086092a1", "HTTHTT"),
    "causal-lm": ("5bf061d03a4a3d3b", "HTTTTT"),
    "seq2seq": ("6ef2b2784499119a", "THTHTH"),
    "image-classification": ("f63f1289fe2c834b", "HTTHTH"),
    "semantic-segmentation": ("f63f1289fe2c834b", "HTTHTH"),
    "audio-classification": ("f63f1289fe2c834b", "HTTHTH"),
    "speech-recognition": ("f63f1289fe2c834b", "HTTHTH"),
    "recommendation": ("7b8540e98547d850", "HHTTHH"),
    "multi-task": ("527c1c5f5e04998a", "HTHHTH"),
}
"""Start of a hash over the whole contents in the record index, row by row, and the splits: version 2."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_version_1_is_known_and_split_as_it_always_was(kind: str, tmp_path: Path) -> None:
    assert identity_of(kind, tmp_path) == RECORDED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_known_and_split_by_its_content(kind: str, tmp_path: Path) -> None:
    reader, table = table_of(kind, tmp_path)
    rule = SplitRule(KEY, 0.4)
    contents = rule.contents(table)
    digest = hashlib.sha256(b"|".join(RecordIndex(tmp_path / "index.sqlite", KEY).hashed(contents))).hexdigest()
    splits = rule.splits(reader, table, contents).tolist()
    assert (digest[:16], "".join(split[0].upper() for split in splits)) == TODAY[kind]


def identity_of(kind: str, folder: Path) -> Identity:
    reader, table = table_of(kind, folder)
    indexed = content_columns(table.columns, {})
    texts = [identity(cell) for column in indexed.values() for cell in table[column]]
    digest = hashlib.sha256(b"|".join(RecordIndex(folder / "index.sqlite", KEY).hashed(texts))).hexdigest()
    contents = reader.contents(table)
    hashed = hashlib.sha256(repr(contents).encode()).hexdigest()
    splits = splits_of(contents, key=KEY, holdout=0.4)
    return Identity(" ".join(indexed), digest[:16], hashed[:16], "".join(split[0].upper() for split in splits))


def table_of(kind: str, folder: Path) -> tuple[Table, pd.DataFrame]:
    path = write_example(EXAMPLES[kind], folder)
    task: Task = TypeAdapter(Task).validate_python({"kind": kind, **EXAMPLES[kind].declared})
    reader, indexed = Table(task_kind(task), {}), content_columns(columns_of(path), {})
    names = indexed | reader.names
    media = [column for name, column in names.items() if name in MEDIA]
    table = read_table(path, [*names.values()], media, optional=reader.optional)
    assert reader.contents(table) == reader.contents(reader.read(path))
    return reader, table
