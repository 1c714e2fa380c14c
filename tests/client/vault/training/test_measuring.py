"""The round that measures features' moments: exact, noisy, accounted like any other, and nothing else moves in it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from client.vault.training.gradient_probe import HALF_TOLERANCE, probe
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.rounding import encoding_for
from client.vault.training.trainer import LearningRates, PrivateTrainer
from server.rounds.update_bounds import norm_bound
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.measured import MEASURED, MEASURING_RATE
from shared.adapted_model.model import build
from shared.adapted_model.whitened_head import WhitenedHead
from shared.errors import ExactnessError, SettingsError
from shared.privacy.noise_schedule import NoiseSchedule, plan
from shared.protocol.messages import Status, TrainTask, Vector
from shared.records.batches import collate
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Records = Callable[..., Dataset]
Studies = Callable[..., Study]
ADAPTERS = [{"layers": "all"}, {"layers": "last:1"}, {"method": "head-only"}, {"method": "dora", "layers": "last:1"}]


def whitened(make_study: Studies, **adapter: str) -> Study:
    aggregation = {"aggregation": "fedit"} if adapter.get("method") == "dora" else {}
    return make_study(adapter=adapter, training={"whitening": True}, federation=aggregation)


def trainer(
    study: Study, records: Dataset, device: torch.device, planned: NoiseSchedule | None = None
) -> PrivateTrainer:
    model = build(study).to(device)
    activations = open_activations(model, records, device, folder=None, limit_bytes=0)
    return PrivateTrainer(
        model,
        activations,
        planned or plan(study.privacy, steps=study.total_steps),
        divisor_size=60,
        learning_rates=LearningRates(16.0, 1.0),
        micro_batch_tokens=128,
    )


def by_part(study: Study, update: Vector) -> tuple[Vector, Vector]:
    """What is measured, and everything else."""
    parts, start = (list[Vector](), list[Vector]()), 0
    for name, shape in build(study).layout.tensors:
        size = int(np.prod(shape))
        parts[not name.startswith(MEASURED)].append(update[start : start + size])
        start += size
    return np.concatenate(parts[0]), np.concatenate(parts[1])


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: "-".join(adapter.values()))
@pytest.mark.parametrize("cached", [True, False])
def test_both_kinds_of_round_are_exact(
    make_study: Studies,
    make_records: Records,
    tmp_path: Path,
    device: torch.device,
    adapter: dict[str, str],
    cached: bool,
) -> None:
    tested = trainer(whitened(make_study, **adapter), make_records(5), device)
    assert probe(tested, cache=tmp_path if cached else None).worst < 1e-5


def test_both_kinds_of_round_are_exact_but_for_rounding_in_bfloat16(
    make_study: Studies, make_records: Records, device: torch.device
) -> None:
    tested = trainer(whitened(make_study, layers="last:1"), make_records(5), device)
    tested.precision = "bfloat16"
    assert 0 < probe(tested, cache=None).worst < HALF_TOLERANCE


def test_moments_that_another_record_moves_are_refused(
    make_study: Studies, make_records: Records, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def centred(head: WhitenedHead, features: Tensor) -> Tensor:  # as whoever wants a covariance might write it
        apart = features - features.mean(0, keepdim=True)
        return -(apart * head.moments(apart)).sum(-1)

    monkeypatch.setattr(WhitenedHead, "measured", centred)
    with pytest.raises(ExactnessError, match=f"{MEASURED}weight"):
        probe(trainer(whitened(make_study, layers="last:1"), make_records(5), device), cache=None)


@pytest.mark.guarantee("a round that measures trains nothing else, and no other round measures.")
@pytest.mark.parametrize("wire", ["float32", "int8"])
def test_the_first_round_moves_the_moments_alone_and_the_others_all_but_them(
    make_study: Studies, make_records: Records, wire: str
) -> None:
    study = make_study(
        privacy={"epsilon": 50},
        training={"whitening": True},
        federation={"wire": wire, "smallest_declared_size": 10},
    )
    model = build(study)
    site = RoundTrainer(
        study,
        model,
        make_records(60),
        declared_size=60,
        randomness=lambda number: SeededRandomnessForSimulation(1, number),
    )
    adapter = np.zeros(model.layout.length, np.float32)
    for number in (1, 2, 3):
        reply = site.train(TrainTask(study.sha256, "run", number, adapter, wire=study.federation.wire))
        assert reply.status is Status.TRAINED and len(reply.update) == len(adapter)
        measured, trained = by_part(study, reply.update)
        assert measured.any() == (number == 1) and trained.any() == (number > 1)
        assert np.linalg.norm(reply.update) <= norm_bound(study, number, model.layout)
        adapter = adapter + reply.update
    model.load(adapter)
    assert isinstance(model.head, WhitenedHead) and not torch.equal(model.head.whitener, torch.eye(32))
    assert not model.measuring


def test_without_noise_the_moments_are_those_of_a_loop_over_records(
    make_study: Studies, make_records: Records, device: torch.device
) -> None:
    study, records = whitened(make_study, layers="last:1"), make_records(40)
    records.usable[7] = False
    planned = replace(plan(study.privacy, steps=9), noise_multiplier=1e-9, sampling_rate=1.0)
    tested = trainer(study, records, device, planned)
    zeros = np.zeros(tested.model.layout.length, np.float32)
    update = tested.train_round(zeros, factors=[1.0, 1.0], randomness=SeededRandomnessForSimulation(1), measures=True)
    expected = np.zeros((32, 32))
    model = build(study).to(device)
    for index in np.flatnonzero(records.usable).tolist():
        batch = collate(records, [index], model.kind.fills, device)
        (one,) = model.kind.features(model.kind.run(model.base, batch), batch).detach().cpu().double().numpy()
        expected += 2 * np.outer(one, one) / (one @ one + 0.01) / 60  # two steps, AUTO-S, the public divisor
    expected *= MEASURING_RATE
    np.testing.assert_allclose(by_part(study, update)[0].reshape(32, 32), expected, atol=1e-7)


def test_the_noise_of_a_round_that_measures_is_the_plans(
    make_study: Studies, make_records: Records, device: torch.device
) -> None:
    study = whitened(make_study, layers="last:1")
    tested, planned = trainer(study, make_records(0), device), plan(study.privacy, steps=9)
    zeros = np.zeros(tested.model.layout.length, np.float32)
    update = tested.train_round(zeros, factors=[1.0] * 4, randomness=SeededRandomnessForSimulation(1), measures=True)
    deviation = MEASURING_RATE * planned.noise_multiplier * planned.clip_norm * 2 / (planned.sampling_rate * 60)
    # of 1,024 values a deviation is right within 14 %, six of its own
    assert by_part(study, update)[0].std() == pytest.approx(deviation, rel=0.14)
    short = make_study(training={"whitening": True}, federation={"wire": "int8"})
    grid = encoding_for(short, tested.model.layout, declared_size=60, round_number=1).grids[1]
    assert grid.values()[128] == pytest.approx(deviation * np.sqrt(3 / 4) / 8, rel=1e-3)  # a round has three steps


def test_a_unit_of_many_records_is_measured_as_one(
    make_study: Studies, make_records: Records, device: torch.device
) -> None:
    study = make_study(training={"whitening": True}, privacy={"unit": "patient"})
    records = replace(make_records(30), units=np.arange(30) // 3)
    planned = replace(plan(study.privacy, steps=9), noise_multiplier=1e-9, sampling_rate=1.0)
    tested = trainer(study, records, device, planned)
    zeros = np.zeros(tested.model.layout.length, np.float32)
    update = tested.train_round(zeros, factors=[1.0], randomness=SeededRandomnessForSimulation(1), measures=True)
    moments = by_part(study, update)[0].reshape(32, 32) / MEASURING_RATE
    assert 0 < np.linalg.norm(moments) <= 10 / 60  # ten units, each of length 1 at most, over the divisor
    assert np.trace(moments) > 9 / 60


def test_only_a_study_that_whitens_measures(make_study: Studies, make_records: Records, device: torch.device) -> None:
    tested = trainer(make_study(), make_records(5), device)
    zeros = np.zeros(tested.model.layout.length, np.float32)
    with pytest.raises(SettingsError, match=r"training\.whitening"):
        tested.train_round(zeros, factors=[1.0], randomness=SeededRandomnessForSimulation(1), measures=True)
