"""Memory of weights that were read is given back, and nothing of them is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.base_models.mapped_weights import MAPPINGS, give_back
from shared.records.ragged import Records
from shared.study.declaration import Study

MIB = 2**20


def resident_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    if not MAPPINGS.exists():
        pytest.skip("weights are given back on Linux alone, and it runs there")
    drawn = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(MIB, generator=drawn) for name in ("below", "above")}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_pages_of_mapped_weights_are_given_back_and_read_again(saved: Path) -> None:
    weights, kept = load_file(saved), load_file(saved)["below"].clone()
    read = float(weights["below"].sum() + weights["above"].sum())
    before = resident_bytes()
    given = give_back([weights["below"]])
    assert 4 * MIB - 2 * 4096 <= given <= 4 * MIB
    assert before - resident_bytes() > 3 * MIB
    assert torch.equal(weights["below"], kept) and float(weights["below"].sum() + weights["above"].sum()) == read


def test_weights_in_memory_and_weights_that_were_changed_keep_their_values(saved: Path) -> None:
    weights = load_file(saved)
    in_memory = torch.ones(MIB)
    weights["above"][:10] = 7.0
    assert give_back([in_memory, *weights.values()]) == 0
    assert bool((in_memory == 1).all()) and bool((weights["above"][:10] == 7).all())


def test_nothing_is_given_back_where_the_system_tells_no_mappings(
    saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shared.base_models.mapped_weights.MAPPINGS", tmp_path / "none")
    assert give_back(load_file(saved).values()) == 0


@pytest.mark.parametrize(("resting_bytes", "expected"), [(1, True), (2**40, False)])
def test_frozen_layers_rest_once_a_large_file_of_their_activations_is_made(
    saved: Path,
    make_study: Callable[..., Study],
    make_records: Callable[..., Records],
    monkeypatch: pytest.MonkeyPatch,
    resting_bytes: int,
    expected: bool,
) -> None:
    model, rested = build(make_study(adapter={"layers": "last:1"})), list[int]()
    monkeypatch.setattr("shared.adapted_model.model.give_back", lambda weights: rested.append(len(list(weights))))
    monkeypatch.setattr("shared.adapted_model.frozen_activations.RESTING_BYTES", resting_bytes)
    for _ in range(2):
        open_activations(model, make_records(9), torch.device("cpu"), folder=saved.parent / "kept", limit_bytes=2**30)
    assert bool(rested) is expected and len(rested) < 2
