"""Whatever happens to a table's file: it is refused in words, or each of its rows has a fate that is told."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from client.vault.records.snapshot import SplitRule, take_snapshot
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.errors import DataError
from shared.records.tables import read_table
from shared.study.sections import Model
from shared.study.tasks import SequenceClassification
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table

FEW, MANY = 300, 2000
ROWS = [(f"it was {word}, really {n}", ("no", "yes")[n % 2]) for n, word in enumerate(["good", "bad", "schön"] * 5)]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
JSON = FRAME.to_dict("records")
FILES: dict[str, Callable[[], bytes]] = {
    "t.csv": lambda: FRAME.to_csv(index=False).encode(),
    "t.tsv": lambda: FRAME.to_csv(index=False, sep="\t").encode(),
    "s.csv": lambda: FRAME.to_csv(index=False, sep=";").encode(),
    "t.jsonl": lambda: FRAME.to_json(orient="records", lines=True, force_ascii=False).encode(),
    "t.json": lambda: json.dumps(JSON, ensure_ascii=False).encode(),
    "t.csv.gz": lambda: gzip.compress(FRAME.to_csv(index=False).encode(), mtime=0),
    "t.parquet": lambda: FRAME.to_parquet(),
}
PIECES = [
    b'"',
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\0",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"1.0",
    b"\xff",
    b"\xef\xbb\xbf",
]
PIECES += [
    b"1e999",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a": {}}',
    b"\\ud800",
    b"=1+1",
    b"true",
    "é".encode("latin-1"),
    b"PK\x03\x04",
]
ENCODINGS = ["utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-32"]


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Change a file as editors, exports, downloads and disks do."""
    for _ in range(dice.randint(1, 3)):
        start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
        match dice.randrange(7):
            case 0:
                content = content[:start] + dice.choice(PIECES) + content[start:]
            case 1:
                content = content[:start] + content[min(end, start + 20) :]
            case 2:
                content = content[:start]
            case 3:
                content = content[:start] + bytes([dice.randrange(256)]) + content[start + 1 :]
            case 4:
                content = content.decode("utf-8", "replace").encode(dice.choice(ENCODINGS), "replace")
            case 5:
                content = content[:end] + content[start:]
            case _:
                content = content.replace(
                    *dice.choice([(b",", b";"), (b'"', b"'"), (b"\n", b"\r\n"), (b"text", b"Text")])
                )
    return content


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_mutated_tables_are_refused_in_words_or_every_row_is_accounted_for(
    tmp_path: Path, tiny_bert: Path, count: int
) -> None:
    task = SequenceClassification(kind="sequence-classification", labels=("no", "yes"), max_length=16)
    reader, rule = Table(task_kind(task), {}), SplitRule(b"k" * 16, 0.2)
    tokenizer = load_tokenizer(find(Model(source=str(tiny_bert))))
    contents, dice, read = {name: make() for name, make in FILES.items()}, random.Random(count), 0
    for number in range(count):
        name = dice.choice(list(contents))
        content = mutated(contents[name], dice)
        path = tmp_path / name
        path.write_bytes(content)
        try:
            table = read_table(path, ["text", "label"])
        except DataError as error:  # anything else is a traceback
            assert str(error).startswith("Expected "), (number, name)
            continue
        read += 1
        snapshot = take_snapshot(table, reader, tokenizer, rule, records_per_unit=1)
        facts = snapshot.facts
        assert facts.train + facts.holdout + facts.dropped == facts.rows == len(table), (number, name)
        unusable = {p.row for p in snapshot.problems if not hasattr(p.reason, "kind")}
        usable = int(snapshot.train.usable.sum() + snapshot.holdout.usable.sum())
        assert usable + len(unusable) + facts.copies == len(table), (number, name)
    assert count // 10 < read < count
