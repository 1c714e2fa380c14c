"""A digest of a run's data: byte by byte of tables, by name and size of what is large."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations.experiment.scenario import Scenario
from simulations.run_identity.settings import deciding
from simulations.run_identity.source import MEDIA, MISSING, SOURCE, digests
from tests.support.tiny_run import declaration


def of_images(source: str = "table.csv") -> Scenario:
    declared = declaration(Path("model")) | {"task": {"kind": "image-classification", "labels": ["no", "yes"]}}
    del declared["adapter"]
    declared["simulation"]["data"] |= {"source": source}
    return Scenario.model_validate(declared)


def of_texts() -> Scenario:
    return Scenario.model_validate(declaration(Path("model")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "table.csv").write_text("image,label,site\na.png,no,north\nb.png,yes,south\n,no,north\n")
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_table_is_covered_byte_by_byte(folder: Path) -> None:
    table = folder / "table.csv"
    before, known = digests(of_texts(), table), table.stat()
    assert list(before) == [SOURCE] and digests(of_texts(), table) == before
    table.write_text(table.read_text().replace("no", "ON"))
    os.utime(table, ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    assert digests(of_texts(), table) != before
    os.mkfifo(folder / "pipe.csv")
    for name in ("gone.csv", "pipe.csv", "a\0b.csv"):
        assert digests(of_texts(), folder / name) == {SOURCE: MISSING}


def test_an_own_test_split_that_is_a_folder_is_covered_by_what_is_in_it(folder: Path) -> None:
    declared = declaration(Path("model"))
    declared["simulation"]["data"] |= {"test": "own"}
    (folder / "own").mkdir()
    (folder / "own" / "rows.csv").write_text("text,label\ngood,yes\n")
    scenario = Scenario.model_validate(declared)
    before = digests(scenario, folder / "table.csv")
    (folder / "own" / "rows.csv").write_text("text,label\nbad,no\n")
    after = digests(scenario, folder / "table.csv")
    assert {key for key in before if before[key] != after[key]} == {"simulation.data.test"}


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "another size": (lambda folder: (folder / "b.png").write_bytes(b"longer than before"), True),
    "gone": (lambda folder: (folder / "b.png").unlink(), True),
    "the same size": (lambda folder: (folder / "b.png").write_bytes(b"B.PNG"), False),
    "a file that no cell names": (lambda folder: (folder / "c.png").unlink(), False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_images_are_covered_by_name_and_size(what: str, folder: Path) -> None:
    before, (change, is_seen) = digests(of_images(), folder / "table.csv"), CHANGES[what]
    change(folder)
    after = digests(of_images(), folder / "table.csv")
    assert (after[MEDIA] != before[MEDIA]) is is_seen and after[SOURCE] == before[SOURCE]


def test_a_folder_of_texts_is_covered_byte_by_byte_and_one_of_images_by_size(tmp_path: Path) -> None:
    (tmp_path / "data.arrow").write_bytes(b"one")
    (tmp_path / "state.json").write_text(json.dumps({"_fingerprint": "a"}))
    texts, images = (digests(scenario, tmp_path)[SOURCE] for scenario in (of_texts(), of_images()))
    (tmp_path / "data.arrow").write_bytes(b"two")
    (tmp_path / "cache-1.arrow").write_bytes(b"what a library left")
    assert digests(of_texts(), tmp_path)[SOURCE] != texts and digests(of_images(), tmp_path)[SOURCE] == images
    (tmp_path / "state.json").write_text(json.dumps({"_fingerprint": "b"}))
    assert digests(of_images(), tmp_path)[SOURCE] != images


def test_figures_follow_from_the_precision_and_from_no_other_key_of_performance() -> None:
    plain = {"study": {"name": "mine"}, "simulation": {"seed": 1, "engine": "ray", "processes": 2}}
    default = {"precision": "float32", "activation_storage": "float32"}
    assert deciding(plain) == {"study": {"name": "mine"}, "simulation": {"seed": 1}, "performance": default}
    fast = plain | {"performance": {"threads": 3, "device": "cuda", "fit_memory": True}}
    assert deciding(fast) == deciding(plain)
    older = deciding(plain | {"performance": {"prefix_storage": "float16"}})
    assert older["performance"] == default | {"activation_storage": "float16"}
