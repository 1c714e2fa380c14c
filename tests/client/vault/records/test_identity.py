"""Content alone says which record a row is: not its label, its spelling, its columns nor its file."""

import io
import json
import shutil
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from client.vault.ledger.rows import IDENTITY_VERSION
from client.vault.records.identity import RecordContents, unit_name
from client.vault.records.snapshot import SplitRule
from client.vault.records.source import read_source
from client.vault.review.node_files import NodeFiles, open_node
from client.vault.review.registering import registered_rows
from shared.errors import PolicyRefusal
from shared.records.tables import content_columns
from shared.study.tasks import SequenceClassification
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table
from tests.support.operators import register_dataset

EARLIER = Path(__file__).with_name("golden") / "node-v1"
KEY = b"k" * 32


class Datasets:
    """A node whose operator registers one table after the other."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "node.toml"
        if not self.config.exists():
            self.config.write_text("[node]\n")

    def register(self, name: str, source: str, **changes: Any) -> set[str]:
        """Register a file of the folder; returns the names that are one account with it."""
        policy = {"epsilon": 3.0, "delta": 1e-5, "declared_size": 12, "models": ["0" * 64], "holdout": 0.4} | changes
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in policy.items())
        before = self.config.read_text()
        self.config.write_text(before + f'\n[datasets.{name}]\nsource = "{source}"\n{lines}')
        register_dataset(self.config, name)
        return self.node.ledger_state().account(name)

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.config.with_name(f"{name}.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path.name

    def tied(self, *tables: list[dict[str, Any]], **changes: Any) -> bool:
        """Register two tables; true if they are one account."""
        accounts = [
            self.register(f"d{number}", self.write(f"d{number}", rows), **changes) for number, rows in enumerate(tables)
        ]
        return accounts[-1] == {"d0", "d1"}

    @property
    def node(self) -> NodeFiles:
        return open_node(self.config)


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return Datasets(tmp_path)


@pytest.fixture
def earlier(tmp_path: Path) -> Datasets:
    """A node whose ledger and index an earlier version wrote."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    return Datasets(tmp_path / "earlier")


@pytest.mark.guarantee(
    "a dataset that was registered under an earlier identity is tied to whatever shares a record with it under either."
)
@pytest.mark.parametrize(
    ("name", "source", "unit"),
    [
        ("ward", "ward.jsonl", {"unit": "patient", "unit_column": "patient"}),
        ("numbers", "numbers.jsonl", {}),
        ("forms", "forms.csv", {}),
    ],
)
def test_the_same_file_under_another_name_is_one_account_with_what_an_older_version_registered(
    earlier: Datasets, name: str, source: str, unit: dict[str, str]
) -> None:
    assert earlier.node.ledger_state().earlier_datasets == {"ward", "numbers", "forms"}
    assert earlier.register("renamed", source, **unit) == {name, "renamed"}
    assert earlier.node.ledger_state().identity_version("renamed") == IDENTITY_VERSION


@pytest.mark.guarantee(
    "a dataset that was registered under an earlier identity is tied to whatever shares a record with it under either."
)
def test_rows_that_pandas_spelled_otherwise_are_found(earlier: Datasets) -> None:
    path = earlier.config.parent / "numbers.jsonl"
    # all but the one number that has no more digits than a float
    path.with_name("rest.jsonl").write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert earlier.register("renamed", "rest.jsonl") == {"numbers", "renamed"}


@pytest.mark.guarantee(
    "a dataset that was registered under an earlier identity is tied to whatever shares a record with it under either."
)
def test_an_earlier_dataset_is_indexed_under_both_spellings(earlier: Datasets) -> None:
    ids = [2**60 + 257 * i for i in range(12)]
    unit = {"unit": "patient", "unit_column": "patient"}
    # one patient of the ward, without the row whose missing number made pandas round all others
    alone = earlier.write("alone", [{"text": "not in the ward", "label": "no", "patient": ids[3]}])
    assert earlier.register("before", alone, **unit) == {"before"}, "known by a rounded number only"
    register_dataset(earlier.config, "ward")
    assert earlier.node.ledger_state().account("ward") == {"ward", "before"}
    assert earlier.register("after", alone, **unit) == {"ward", "before", "after"}


def test_an_earlier_dataset_keeps_its_splits_and_a_new_one_has_todays(earlier: Datasets) -> None:
    node, reader = earlier.node, Table(task_kind(_sequences()), {})
    table = read_source(node.dataset("forms")).assign(
        label=[line.split(",")[1] for line in (earlier.config.parent / "forms.csv").read_text().splitlines()[1:]]
    )
    registry = node.registry(node.ledger_state())
    splits = {}
    for version in (1, 2):
        rule = SplitRule(registry.key, 0.4, identity_version=version)
        splits[version] = "".join(split[0].upper() for split in rule.splits(reader, table, rule.contents(table)))
    assert splits[registry.identity_version("forms")] == (EARLIER / "splits.txt").read_text().strip()
    by_content = set(zip(table["text"], splits[2], strict=True))
    assert len(by_content) == 9 < len(set(zip(table["text"], splits[1], strict=True)))


def test_rows_that_an_older_version_registered_may_be_trained_on_within_the_policy(earlier: Datasets) -> None:
    node = earlier.node
    for name in ("ward", "numbers", "forms"):
        dataset = node.dataset(name)
        registered = registered_rows(node.registry(node.ledger_state()), dataset, read_source(dataset))
        assert all(registered), name


def test_a_dataset_of_today_is_not_looked_for_by_earlier_identities(earlier: Datasets) -> None:
    asked = "Where does it hurt?"
    for name in ("heads", "knees"):
        rows = [{"question": asked, "context": f"{name} {i}", "answer": "x"} for i in range(3)]
        assert earlier.register(name, earlier.write(name, rows)) == {name}


def test_a_fixed_question_ties_nobody(datasets: Datasets) -> None:
    tables = [
        [{"question": "Where does it hurt?", "context": f"{place} {i}", "answer": place} for i in range(4)]
        for place in ("head", "knee")
    ]
    assert not datasets.tied(*tables)


TIED: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "another label": ([{"text": "a note", "label": "yes"}], [{"text": "A  note", "label": "no"}]),
    "two columns and one text": ([{"prompt": "Q?", "response": "A."}], [{"text": "Q?\nA."}]),
    "a list of words and one text": ([{"tokens": ["one", "two"]}], [{"text": "one two"}]),
    "one more column": (
        [{"text": "a note"}],
        [{"text": text, "source": "ward 1"} for text in ("a note", "another")],
    ),
    "a number and its digits": ([{"text": 2**60 + 1}, {"text": None}], [{"text": str(2**60 + 1)}]),
}


@pytest.mark.guarantee(
    "which record a row is depends on that row's content alone, whatever its labels and other rows hold."
)
@pytest.mark.parametrize("case", TIED)
def test_the_same_content_is_one_record(datasets: Datasets, case: str) -> None:
    assert datasets.tied(*TIED[case])


@pytest.mark.parametrize("spelling", ["P1", "p1", " P1 ", "\uff301"])
@pytest.mark.parametrize("other", ["P1", "p1"])
def test_a_unit_is_one_for_groups_and_index_however_it_is_spelled(
    datasets: Datasets, spelling: str, other: str
) -> None:
    assert unit_name(spelling) == unit_name(other)
    tables = [[{"text": f"{place} note", "patient": name}] for place, name in (("here", spelling), ("there", other))]
    assert datasets.tied(*tables, unit="patient", unit_column="patient")


@pytest.mark.parametrize("spelling", ["1", "01", " 001", "1.0", "\uff11"])
def test_a_number_names_one_unit_however_it_is_written(datasets: Datasets, spelling: str) -> None:
    assert unit_name(spelling) == "1"
    tables = [[{"text": f"{place} note", "patient": name}] for place, name in (("here", spelling), ("there", "1"))]
    assert datasets.tied(*tables, unit="patient", unit_column="patient")


def test_other_units_stay_apart() -> None:
    names = ["0", "10", "1.5", "1.05", "p01", "p1", "1 0", "-1", "1.00.0"]
    assert [unit_name(name) for name in names] == names
    assert [unit_name(name) for name in ("", "  ", "00")] == ["", "", "0"]


def png(pixels: int, **words: str) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for name, word in words.items():
        info.add_text(name, word)
    Image.fromarray(np.full((4, 5, 3), pixels, np.uint8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def bmp(pixels: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), pixels, np.uint8)).save(file, "BMP")
    return file.getvalue()


def wav(value: int, *, note: bytes = b"") -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 8000, 0, "NONE", ""))
        written.writeframes(struct.pack("<100h", *[value] * 100))
    content = file.getvalue()
    if note:
        content += b"LIST" + struct.pack("<I", len(note)) + note
        content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    return content


MEDIA: dict[str, tuple[bytes, bytes, bytes]] = {
    "images": (png(7), png(7, Author="someone"), png(8)),
    "formats": (png(7), bmp(7), bmp(8)),
    "recordings": (wav(100), wav(100, note=b"INFOIART\x04\0\0\0me\0\0"), wav(101)),
    "what is neither": (b"a file", b"a file", b"a  file"),
}


@pytest.mark.parametrize("case", MEDIA)
def test_media_are_what_they_show_or_play(case: str) -> None:
    one, same, other = (RecordContents(pd.DataFrame({"image": [file]}), ["image"]).rows[0] for file in MEDIA[case])
    assert one == same != other


def test_media_in_other_files_are_one_account(datasets: Datasets) -> None:
    folder = datasets.config.parent
    for name, content in {"a": png(7), "b": png(7, Author="someone"), "c": png(9)}.items():
        (folder / f"{name}.png").write_bytes(content)
    tables = [[{"image": f"{name}.png"}] for name in ("a", "b")]
    assert datasets.tied(*tables)
    assert datasets.register("other", datasets.write("other", [{"image": "c.png"}])) == {"other"}


@pytest.mark.guarantee("content alone decides whether a record is held out, not its label nor the study.")
def test_labels_and_studies_move_no_record_between_the_halves() -> None:
    texts = [f"text {i}" for i in range(200)]
    halves = []
    for label, spelled in (("yes", str), ("no", str.upper)):
        table = pd.DataFrame({"text": [spelled(text) for text in texts], "text_pair": "", "label": label})
        for pair in (False, True):
            rule, reader = SplitRule(KEY, 0.4), Table(task_kind(_sequences(pair=pair)), {})
            halves.append(rule.splits(reader, table, rule.contents(table)).tolist())
    assert all(half == halves[0] for half in halves) and 60 < halves[0].count("holdout") < 100


@pytest.mark.guarantee(
    "which record a row is depends on that row's content alone, whatever its labels and other rows hold."
)
def test_a_row_changes_no_other_rows_content() -> None:
    table = pd.DataFrame({"prompt": ["Q?", "Q?", ""], "response": ["A.", "B.", "[1"]})
    columns = content_columns(table.columns, {}).values()
    assert RecordContents(table, columns).rows == ["q? a.", "q? b.", "[1"]
    assert RecordContents(table[1:], columns).rows == ["q? b.", "[1"]


def test_the_held_out_fraction_is_entered_at_registration_and_stays(datasets: Datasets) -> None:
    datasets.register("ward", datasets.write("ward", [{"text": "a"}]), holdout=0.25)
    terms = datasets.node.ledger_state().terms["ward"]
    assert (terms.holdout, terms.identity_version) == (0.25, IDENTITY_VERSION)
    datasets.config.write_text(datasets.config.read_text().replace("holdout = 0.25", "holdout = 0.5"))
    with pytest.raises(PolicyRefusal, match=r"registered with holdout = 0\.25, node\.toml says 0\.5"):
        register_dataset(datasets.config, "ward")


def test_the_held_out_fraction_of_an_earlier_dataset_is_entered_with_its_next_records(earlier: Datasets) -> None:
    assert earlier.node.ledger_state().terms["ward"].holdout is None
    register_dataset(earlier.config, "ward")
    terms = earlier.node.ledger_state().terms["ward"]
    assert (terms.holdout, terms.identity_version) == (0.4, 1)
    earlier.config.write_text(earlier.config.read_text().replace("holdout = 0.4", "holdout = 0.5"))
    with pytest.raises(PolicyRefusal, match=r"ward was registered with holdout = 0\.4"):
        register_dataset(earlier.config, "ward")


def _sequences(**changes: Any) -> SequenceClassification:
    return SequenceClassification(kind="sequence-classification", labels=("no", "yes"), **changes)
