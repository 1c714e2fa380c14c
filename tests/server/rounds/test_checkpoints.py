"""A crash at any moment leaves something to continue from."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shared.files
from server.rounds.checkpoints import KEPT_ROUNDS, Checkpoints, State
from shared.errors import DataError, SettingsError


def state(number: int) -> State:
    records, evaluations = [{"round": one} for one in range(1, number + 1)], {str(one): {} for one in range(number + 1)}
    return State("study", "run", number, np.full(4, number, np.float32), records, evaluations)


def latest(folder: Path) -> State | None:
    return Checkpoints(folder).latest(study_sha256="study", study_run="run")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for number in range(6):
        Checkpoints(tmp_path).save(state(number))
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.round == 5 and loaded.records == [{"round": one} for one in range(1, 6)]
    assert loaded.adapter.tolist() == [5, 5, 5, 5] and loaded.evaluations == state(5).evaluations
    assert len(list(tmp_path.glob("*.safetensors"))) == KEPT_ROUNDS and len(list(tmp_path.iterdir())) == 6 + KEPT_ROUNDS


def test_adapters_that_may_be_handed_out_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, lasting=(2, 4))
    for number in range(9):
        checkpoints.save(state(number))
    assert checkpoints.adapter(2).tolist() == [2, 2, 2, 2] and checkpoints.adapter(4).tolist() == [4, 4, 4, 4]
    with pytest.raises(DataError, match="the adapter after round 3"):
        checkpoints.adapter(3)
    (tmp_path / "round-00002.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="after round 2"):
        checkpoints.adapter(2)


def test_a_round_writes_its_own_record_alone(tmp_path: Path) -> None:
    for number in range(200):
        Checkpoints(tmp_path).save(state(number))
    sizes = [(tmp_path / f"round-{number:05d}.json").stat().st_size for number in range(200)]
    assert max(sizes) < 1.2 * min(sizes[1:])
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.records == state(199).records and loaded.evaluations == state(199).evaluations


def test_a_run_that_an_older_version_began_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        whole = "_history_of", lambda _self, it: {"records": it.records, "evaluations": it.evaluations}
        older.setattr(Checkpoints, *whole)
        for number in range(4):
            Checkpoints(tmp_path).save(state(number))
    for number in (0, 1):
        (tmp_path / f"round-{number:05d}.json").unlink()
    for number in range(4, 9):
        found = latest(tmp_path)
        assert found is not None and found.round == number - 1 and found.records == state(number - 1).records
        Checkpoints(tmp_path).save(state(number))
    found = latest(tmp_path)
    assert found is not None and found.records == state(8).records and found.evaluations == state(8).evaluations


@pytest.mark.parametrize("damage", ["missing", "cut", "another run's", "another round's"])
def test_a_history_with_a_hole_is_no_history(tmp_path: Path, damage: str) -> None:
    for number in range(6):
        Checkpoints(tmp_path).save(state(number))
    path = tmp_path / "round-00001.json"
    plain = json.loads(path.read_text())
    {
        "missing": path.unlink,
        "cut": lambda: path.write_text(path.read_text()[:-9]),
        "another run's": lambda: path.write_text(json.dumps(plain | {"study_run": "other"})),
        "another round's": lambda: path.write_text(json.dumps(plain | {"round": 2})),
    }[damage]()
    with pytest.raises(DataError, match="damaged"):
        latest(tmp_path)


def test_a_checkpoint_of_an_older_version_is_read_by_todays_names(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    path = tmp_path / "round-00001.json"
    record = {"round": 1, "outcome": "skipped", "quarantined": [{"node": 2, "reason": "norm"}]}
    older = json.loads(path.read_text()) | {"records": [record]}
    path.write_text(json.dumps(older))
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.records == [
        {"round": 1, "outcome": "lost", "rejected": [{"node": 2, "reason": "norm"}]}
    ]


@pytest.mark.guarantee("a crash at any moment leaves a state that loads, this one or the one before.")
@pytest.mark.parametrize("call", range(4))
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_crash_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, operation: str) -> None:
    Checkpoints(tmp_path).save(state(1))
    honest, calls = getattr(shared.files.os, operation), iter(range(100))

    def crash(*arguments: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return honest(*arguments)

    monkeypatch.setattr(shared.files.os, operation, crash)
    with contextlib.suppress(KeyboardInterrupt):
        Checkpoints(tmp_path).save(state(2))
    monkeypatch.undo()
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.round in (1, 2)
    assert loaded.adapter.tolist() == [loaded.round] * 4


@pytest.mark.guarantee("a crash at any moment leaves a state that loads, this one or the one before.")
@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_pair_is_skipped(tmp_path: Path, suffix: str, damage: str) -> None:
    for number in (1, 2):
        Checkpoints(tmp_path).save(state(number))
    path = tmp_path / f"round-00002.{suffix}"
    content = path.read_bytes()
    flipped = (
        content[:-1] + bytes([content[-1] ^ 1]) if suffix == "safetensors" else content.replace(b"adapter", b"adaptor")
    )
    path.write_bytes({"cut": content[:-9], "empty": b"", "flipped": flipped}[damage])
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.round == 1


def test_another_study_or_nothing_whole_is_said(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    with pytest.raises(SettingsError, match="study"):
        Checkpoints(tmp_path).latest(study_sha256="other", study_run="run")
    (tmp_path / "round-00001.safetensors").unlink()
    with pytest.raises(DataError, match="damaged"):
        latest(tmp_path)


def test_what_a_method_keeps_is_loaded_and_a_changed_bit_of_it_is_damage(tmp_path: Path) -> None:
    for number in (0, 1):
        velocity = {"velocity": np.full(4, number + 0.1)}
        Checkpoints(tmp_path).save(replace(state(number), method_state=velocity))
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.round == 1 and loaded.method_state["velocity"].tolist() == [1.1] * 4
    path = tmp_path / "round-00001.safetensors"
    content = bytearray(path.read_bytes())
    place = content.index(np.float64(1.1).tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    loaded = latest(tmp_path)
    assert loaded is not None and loaded.round == 0, "the round before is whole"
