"""Benchmarks compare like with like: the same tensors, the same noise, the same records."""

import importlib
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from rich.console import Console

from shared.adapted_model.model import build
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.protocol.flower_records import decode_reply, encode_task
from shared.protocol.messages import Status, TrainTask
from shared.records.ragged import Records
from shared.study.declaration import Study
from simulations.benchmarks.__main__ import BENCHMARKS, _table
from simulations.benchmarks.measure import alternating, ratio_of
from simulations.benchmarks.memory.node_memory import micro_batches
from simulations.benchmarks.memory.peak import in_own_process
from simulations.benchmarks.memory.server_memory import aggregate
from simulations.benchmarks.quality import heads
from simulations.benchmarks.speed import decoders, store_work
from simulations.benchmarks.speed.clients import TABLE, prepare_run, scenario_of
from simulations.benchmarks.speed.decoder_steps import Work, step_of, write_decoder
from simulations.benchmarks.speed.drawn import Drawn, draw
from simulations.benchmarks.speed.private_round import first_round
from simulations.benchmarks.speed.training import PrivateRounds, compared
from simulations.benchmarks.stock import plain_lora_app
from simulations.benchmarks.stock.peft_model import peft_model, plain_round, refuse_other_tensors, shapes_of
from simulations.engines.worker import RUN_FOLDER

Studies = Callable[..., Study]


def test_a_ratio_is_the_median_over_turns_with_its_quartiles_and_aim() -> None:
    found = ratio_of("fast", "slow", [(1, 2), (3, 3), (4, 2)], unit="MiB", aim="at most 1")
    assert (found.ours, found.theirs, found.ratio, found.low, found.high) == (3, 2, 1, 0.5, 2)
    assert (found.unit, found.turns, found.aim) == ("MiB", 3, "at most 1")


def test_turns_swap_their_order() -> None:
    order: list[str] = []

    def told(name: str, figure: float) -> float:
        order.append(name)
        return figure

    pairs = alternating(lambda: told("ours", 1), lambda: told("theirs", 2), turns=3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"] and pairs == [(1, 2)] * 3


@pytest.mark.parametrize("layers", ["all", "last:2", "last:1"])
def test_the_peer_trains_the_very_tensors_of_the_study(make_study: Studies, layers: str) -> None:
    study = make_study(adapter={"layers": layers})
    ours = shapes_of(build(study))
    base = find(study.model).directory
    assert ours == shapes_of(peft_model(base, labels=2, layers=layers, rank=study.adapter.rank))
    with pytest.raises(RuntimeError, match="same tensors"):
        refuse_other_tensors(ours, shapes_of(peft_model(base, labels=2, layers=layers, rank=4)))


@pytest.mark.parametrize(("layers", "rows"), [("all", 1), ("last:2", 2)])
def test_opacus_recipe_spends_what_a_round_of_ours_does(
    make_study: Studies, make_records: Callable[..., Records], layers: str, rows: int
) -> None:
    study = make_study(
        adapter={"layers": layers}, privacy={"epsilon": 8.0, "sampling_rate": 0.25}, training={"local_steps": 4}
    )
    found = list(compared(study, make_records(80), turns=2))  # raises for another sigma, rate or number of steps
    assert len(found) == rows and all(row.ours > 0 and row.theirs > 0 for row in found)
    other = study.model_copy(update={"training": study.training.model_copy(update={"local_steps": 3})})
    with pytest.raises(RuntimeError, match="sigma, q and steps"):
        list(compared(other, make_records(80), turns=1))


@pytest.mark.integration
def test_steps_of_a_decoder_train_the_same_tensors_three_ways(tmp_path: Path) -> None:
    shape = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    write_decoder(tmp_path, shape | {"num_attention_heads": 2})
    work = Work(tmp_path, records=4, tokens=16, device="cpu")
    found = list(decoders.compared("tiny", work, turns=2))  # raises for other tensors
    assert [(row.unit, row.peer) for row in found] == [
        (unit, peer) for unit in ("records/s", "MiB") for peer in decoders.PEERS.values()
    ]
    assert all(row.ours > 0 and row.theirs > 0 for row in found)
    assert step_of("private", work).trains == [(32, 8)] * 4


@pytest.mark.integration
def test_a_plans_rate_of_a_head_stands_beside_fixed_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(heads, "HELD_OUT", 40)
    monkeypatch.setattr(heads, "RATES", (2.0, heads.DEFAULT))
    study, kinds = heads.study_of(["bad", "good"], 8.0), ["bad", "good"] * 120
    cells = {"text": [f"it was {kind}, {number}" for number, kind in enumerate(kinds)], "label": kinds}
    found = heads.chosen("films", heads.Federation(study, cells, tmp_path), study, (100, 100))
    assert found.best is not None and found.plan is not None and found.best > 0.9 and found.plan > 0.8
    assert found.plan_rate and found.lost_by_plan == pytest.approx(100 * (found.best - found.plan))
    assert found.best_rate in heads.RATES and found.sites == "100 100"


def test_halves_are_two_classes_and_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    table = tmp_path / "posts.csv"
    with pytest.raises(SettingsError) as refusal:
        heads.read(heads.Classes("posts", table))
    assert refusal.value.hint == "Run: fedvault-sim data fetch posts"
    table.write_text("text,label\nw,a\nx,b\ny,c\nz,d\n")
    assert heads.read(heads.Classes("posts", table))[0] == ["a", "b", "c", "d"]
    labels, cells = heads.read(heads.Classes("posts", table, halves=True))
    halves = dict(zip(cells["text"], cells["label"], strict=True))
    assert labels == ["0", "1"] and halves == {"w": "0", "x": "0", "y": "1", "z": "1"}


def test_a_later_round_needs_a_first_one(make_study: Studies, make_records: Callable[..., Records]) -> None:
    with pytest.raises(RuntimeError, match="first round"):
        PrivateRounds(make_study(), make_records(20)).later()


def test_both_train_on_the_records_that_were_drawn(
    make_study: Studies, make_records: Callable[..., Records], tmp_path: Path
) -> None:
    study, records = make_study(performance={"micro_batch_tokens": 64}), make_records(60)
    batches = draw(len(records), steps=3, sampling_rate=0.5)
    source = Drawn(batches)
    assert all(np.array_equal(source.step().poisson_batch(60, 0.5), batch) for batch in batches)
    cut = micro_batches(study, records, batches)
    for parts, chosen in zip(cut, batches, strict=True):
        assert len(parts) > 1
        assert sorted(ids for part in parts for ids in part["ids"]) == sorted(
            records["ids"][i].tolist() for i in chosen
        )
    records.save(tmp_path / "records.npz")
    (tmp_path / "cut.json").write_text(json.dumps(cut))
    theirs = plain_round(find(study.model).directory, tmp_path / "cut.json", 2, "last:2", study.adapter.rank)
    assert first_round(study, tmp_path / "records.npz", batches) == theirs


@pytest.mark.guarantee("replies are folded as they come and dropped, so memory does not grow with the number of nodes.")
def test_a_round_of_many_nodes_holds_no_more_than_one_of_few() -> None:
    def peak(nodes: int) -> int:
        tracemalloc.start()
        assert aggregate(nodes, 300_000) == list(range(1, nodes + 1))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # whatever is imported at first use
    assert peak(60) < 1.1 * peak(4)


@pytest.mark.integration
def test_a_process_of_its_own_tells_its_peak_alone() -> None:
    held = np.ones(40_000_000)  # 305 MiB here, and not there
    little, much = in_own_process(np.ones, 1)[1], in_own_process(np.ones, 40_000_000)[1]
    assert little < 300 and much - little > 300 and held.all()


def test_the_work_of_a_round_in_the_run_store_is_measured() -> None:
    measured = next(store_work.rows(nodes=2, rounds=1))
    assert (measured.database, measured.nodes) == ("SQLite", 2) and measured.cpu_ms_per_reply > 0


def test_every_benchmark_has_rows() -> None:
    for benchmark in BENCHMARKS.values():
        iter(importlib.import_module(f"simulations.benchmarks.{benchmark.module}").rows())  # measures nothing yet


def test_a_ratio_is_told_in_eighty_columns() -> None:
    found = ratio_of("a round of many clients", "another engine", [(0.12, 6), (1234, 6)], aim="at most 0.02")
    told = io.StringIO()
    Console(width=80, file=told).print(_table("engines", [found]))
    assert "617 / 6 s" in told.getvalue() and "at most 0.02" in told.getvalue()


@pytest.mark.integration
def test_plain_clients_move_the_very_tensors_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = prepare_run(scenario_of(100), TABLE, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    threads = torch.get_num_threads()
    content = encode_task(TrainTask(study.study_sha256, study.study_run, 1, study.initial))
    context = Context(1, 7, {"partition-id": 6, "num-partitions": 100}, RecordDict(), {})
    told = decode_reply(plain_lora_app.app(Message(content, 7, "train"), context).content)
    torch.set_num_threads(threads)
    assert told.status == Status.TRAINED and told.update.shape == study.initial.shape
    assert np.isfinite(told.update).all() and np.count_nonzero(told.update) > 0.9 * len(told.update)
