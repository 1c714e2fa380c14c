"""Whatever happens to a table's file: it is refused in words, or each of its rows has a fate that is told."""

import random
from pathlib import Path

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
from tests.support.mutated_tables import FILES, mutated

FEW, MANY = 300, 2000


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
