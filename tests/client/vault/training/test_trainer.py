"""The private round on a tiny BERT: what depends on the data, and what does not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from client.vault.training.round_trainer import RoundTrainer
from shared.adapted_model.activation_file import ActivationFile
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.protocol.flower_records import encode_reply
from shared.protocol.messages import Status, TrainReply, TrainTask, without_update
from shared.protocol.update_encoding import WIRES, Wire, packed_bytes
from shared.records.batches import physical
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Records = Callable[..., Dataset]
Studies = Callable[..., Study]
CPU = torch.device("cpu")


def vault(
    study: Study,
    records: Dataset,
    cache: Path | None = None,
    declared: int = 60,
    device: torch.device = CPU,
) -> RoundTrainer:
    def seeded(number: int) -> SeededRandomnessForSimulation:
        return SeededRandomnessForSimulation(1, number)

    model = build(study).to(device)
    return RoundTrainer(study, model, records, declared_size=declared, randomness=seeded, cache=cache)


def task(vault: RoundTrainer, number: int = 1) -> TrainTask:
    return TrainTask(vault.study.sha256, "run", number, np.zeros(vault.model.layout.length, np.float32))


def trained(vault: RoundTrainer) -> TrainReply:
    reply = vault.train(task(vault))
    assert reply.status is Status.TRAINED
    return reply


@pytest.mark.guarantee(
    "a record's activations depend on that record alone, to the last bit; the cache changes no update."
)
@pytest.mark.parametrize("adapter", [{"layers": "last:1"}, {"layers": "last:2"}, {"method": "head-only"}])
def test_update_with_the_cache_is_the_same_to_the_last_bit(
    make_study: Studies, make_records: Records, tmp_path: Path, device: torch.device, adapter: dict[str, str]
) -> None:
    cached, computed = (
        make_study(adapter=adapter, performance={"activation_cache": kept, "micro_batch_tokens": 128})
        for kept in (True, False)
    )
    records = make_records(60)
    with_cache = trained(vault(cached, records, tmp_path / "cache", device=device))
    assert list((tmp_path / "cache").glob("*.f32"))
    assert with_cache.update.tobytes() == trained(vault(computed, records, device=device)).update.tobytes()


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_gpu_takes_the_step_that_the_cpu_takes(
    make_study: Studies, make_records: Records, device: torch.device, unit: str
) -> None:
    if device.type == "cpu":
        pytest.skip("compares a GPU with the CPU; runs with --device=cuda on a machine that has one")
    study, records = make_study(privacy={"unit": unit}, federation={"smallest_declared_size": 5}), make_records(60)
    if unit == "patient":
        records = replace(records, units=np.arange(60) // 3)
    here, there = (trained(vault(study, records, device=where)).update for where in (CPU, device))
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-5)


def test_activations_are_the_same_bits_whoever_shares_the_batch(
    make_study: Studies, make_records: Records, device: torch.device
) -> None:
    records, model = make_records(40), build(make_study(adapter={"layers": "last:1"})).to(device)
    activations = open_activations(model, records, device, folder=None, limit_bytes=0)
    together = activations.states(range(40))
    alone = [activations.states([index])[0] for index in range(40)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_pooled_features_from_a_lower_cache_are_the_same_bits(
    make_study: Studies, make_records: Records, tmp_path: Path, device: torch.device
) -> None:
    records, lower = make_records(40), build(make_study(adapter={"layers": "last:1"})).to(device)
    head = build(make_study(adapter={"method": "head-only"})).to(device)
    open_activations(lower, records, device, folder=tmp_path / "both", limit_bytes=2**30)
    folders = [tmp_path / "both", tmp_path / "alone"]
    states = [open_activations(head, records, device, folder=f, limit_bytes=2**30).states(range(40)) for f in folders]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_full_disk_leaves_nothing_of_a_cache(
    make_study: Studies, make_records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, written = ActivationFile.write, list[int]()

    def write(states: ActivationFile, start: int, rows: NDArray[np.floating]) -> None:
        if written:
            raise OSError("no space left on device")
        written.append(start)
        kept(states, start, rows)

    records, model = make_records(40), build(make_study(adapter={"layers": "last:1"}))
    monkeypatch.setattr(ActivationFile, "write", write)
    with pytest.raises(OSError, match="no space left"):
        open_activations(model, records, next(model.parameters()).device, folder=tmp_path, limit_bytes=2**30)
    assert written and not list(tmp_path.iterdir())


def test_too_large_a_cache_is_not_made(make_study: Studies, make_records: Records, tmp_path: Path) -> None:
    study = make_study(performance={"activation_cache_limit_bytes": 100})
    trained(vault(study, make_records(60), tmp_path))
    assert not list(tmp_path.glob("*.f32"))


def test_adding_or_removing_a_record_changes_no_public_number(make_study: Studies, make_records: Records) -> None:
    study, records = make_study(), make_records(60)
    fewer = records.select(np.arange(59))
    node_vault = [vault(study, records), vault(study, fewer)]
    trainers = [v.trainer() for v in node_vault]
    replies = [v.train(task(v)) for v in node_vault]
    assert trainers[0].plan == trainers[1].plan
    assert trainers[0].divisor == trainers[1].divisor == pytest.approx(0.1 * 60)
    assert len({len(encode_reply(r)["reply"].deflate()) for r in replies}) == 1
    assert replies[0].update.tobytes() != replies[1].update.tobytes()


def test_at_a_typical_size_an_update_is_as_much_longer_as_the_site_is_larger(
    make_study: Studies, make_records: Records
) -> None:
    """Oracle: a single step's update, signal and noise, is the same sum over another divisor."""
    one_step, records = {"local_steps": 1}, make_records(60)
    own = vault(make_study(training=one_step), records)
    typical = vault(make_study(training=one_step, federation={"typical_size": 40}), records)
    capped = vault(make_study(training=one_step, federation={"typical_size": 10}), records)
    assert (own.trainer().plan, own.trainer().divisor) == (typical.trainer().plan, 0.1 * 60)
    expected = trained(own).update
    np.testing.assert_allclose(trained(typical).update, expected * 60 / 40, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained(capped).update, expected * 4, rtol=1e-4, atol=1e-6)


def test_physical_batch_size_changes_the_update_by_rounding_only(make_study: Studies, make_records: Records) -> None:
    updates = [
        trained(vault(make_study(performance={"micro_batch_tokens": tokens}), make_records(60))).update
        for tokens in (64, 4096)
    ]
    np.testing.assert_allclose(updates[0], updates[1], atol=1e-5 * float(np.abs(updates[1]).max()))


def test_unusable_records_contribute_nothing(make_study: Studies, make_records: Records) -> None:
    records = make_records(60)
    spoiled = replace(records, usable=np.zeros(60, dtype=bool))
    empty = records.select(np.zeros(0, np.int64))
    study = make_study(adapter={"method": "head-only"})
    noise_only = [trained(vault(study, found)).update for found in (spoiled, empty)]
    assert noise_only[0].tobytes() == noise_only[1].tobytes()


@pytest.mark.guarantee(
    "what `train_round` returns depends on a record only through noisy sums that the plan accounts for."
)
def test_number_of_draws_and_noise_do_not_depend_on_the_records(make_study: Studies, make_records: Records) -> None:
    class Counting(SeededRandomnessForSimulation):
        steps = 0

        def step(self):  # type: ignore[no-untyped-def]
            Counting.steps += 1
            return super().step()

    counts = []
    for records in (make_records(60), make_records(0)):
        Counting.steps = 0
        counted = vault(make_study(), records)
        zeros = np.zeros(counted.model.layout.length, np.float32)
        counted.trainer().train_round(zeros, factors=[1.0, 0.5, 0.1], randomness=Counting(1))
        counts.append(Counting.steps)
    assert counts == [3, 3]


@pytest.mark.guarantee("every reply of a study has the same length, whether training succeeded or not.")
@pytest.mark.guarantee("everything a reply says about the records went through the private trainer.")
def test_failure_and_refusal_answer_with_a_code_and_zeros_of_the_usual_length(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = vault(make_study(), make_records(60))
    usual = trained(good)
    refused = good.train(TrainTask("0" * 64, "run", 1, usual.update))
    small = vault(make_study(), make_records(60), declared=9)
    monkeypatch.setattr(good.trainer(), "train_round", lambda *_, **__: 1 / 0)
    replies = [good.train(task(good)), refused, small.train(task(small))]
    assert [r.status for r in replies] == [Status.FAILED, Status.REFUSED_STUDY, Status.REFUSED_SIZE]
    assert all(r.update.shape == usual.update.shape and not r.update.any() for r in replies)
    assert "division by zero" in caplog.text
    assert "division" not in str(encode_reply(replies[0]))


@pytest.mark.guarantee("every reply of a study has the same length, whether training succeeded or not.")
@pytest.mark.parametrize("wire", WIRES)
def test_in_every_encoding_replies_have_one_length_and_it_is_the_one_that_the_task_implies(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    good = vault(make_study(federation={"wire": wire}), make_records(60))
    asked = replace(task(good), wire=wire)
    replies = [
        good.train(asked),
        good.train(replace(asked, round=9)),
        good.train(replace(asked, study_sha256="0" * 64)),
    ]
    monkeypatch.setattr(good.trainer(), "train_round", lambda *_, **__: 1 / 0)
    # the last is the link's own, when the vault is away
    replies += [good.train(asked), without_update(asked, Status.FAILED)]
    assert [r.status for r in replies] == [Status.TRAINED, *[Status.REFUSED_STUDY] * 2, *[Status.FAILED] * 2]
    assert {len(encode_reply(r)["reply"]["update"]) for r in replies} == {packed_bytes(len(asked.adapter), wire)}
    assert len({len(encode_reply(replace(r, study_sha256="0" * 64))["reply"].deflate()) for r in replies}) == 1


def test_a_task_that_asks_for_another_encoding_is_refused(make_study: Studies, make_records: Records) -> None:
    short = vault(make_study(federation={"wire": "int8"}), make_records(60))
    assert short.train(task(short)).status is Status.REFUSED_STUDY


def test_state_that_does_not_move_stops_the_run(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    still = vault(make_study(), make_records(60))
    monkeypatch.setattr(still.trainer(), "_step", lambda *_: None)
    assert still.train(task(still)).status is Status.FAILED
    assert "Expected noise to move what is trained" in caplog.text


def test_more_numbers_than_the_grid_is_made_for_are_refused_before_training(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.vault.training.round_trainer.MOST_NUMBERS", 10)
    large = vault(make_study(), make_records(60))
    assert large.train(task(large)).status is Status.REFUSED_EXACTNESS


def test_a_refused_probe_is_said_because_it_happens_before_any_training(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ExactnessError("Expected exact gradients, got others.")

    monkeypatch.setattr("client.vault.training.round_trainer.ensure_exact", refuse)
    refusing = vault(make_study(), make_records(60))
    assert refusing.train(task(refusing)).status is Status.REFUSED_EXACTNESS


def test_physical_batches_hold_every_record_once_and_stay_small() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 300)
    sizes = -(-lengths[:, None] // 8) * 8
    parts = physical(sizes, np.arange(0, 300, 2), tokens=256)
    assert sorted(i for part in parts for i in part) == list(range(0, 300, 2))
    assert all(len(part) * -(-max(lengths[part]) // 8) * 8 <= 256 for part in parts)
