"""Units of privacy that are more than one record: sampled, clipped and counted as one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.policy import DatasetPolicy, objections
from client.vault.records.privacy_units import group, rows_without_copies
from client.vault.records.splits import Split, splits_of, unit_splits
from client.vault.training import trainer as private_training
from client.vault.training.linear_gradients import plain_linear_layers
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.errors import DataError, ExactnessError, SettingsError
from shared.privacy.noise_schedule import plan
from shared.protocol.messages import Status, TrainTask
from shared.records.batches import collate
from shared.records.ragged import Records as Dataset
from shared.records.ragged import load, ragged
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Studies, Records = Callable[..., Study], Callable[..., Dataset]
Vector = NDArray[np.float64]
KEY = b"k" * 32
UNITS = np.array([0] * 9 + [1] * 2 + [2] + [3] * 5 + [4] * 3)
Rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=30)


class Chosen:
    """A source of one step that draws the given units and no noise."""

    def __init__(self, units: Sequence[int]) -> None:
        self.units, self.counts = np.array(units, dtype=np.int64), list[int]()

    def step(self) -> "Chosen":
        return self

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        self.counts.append(count)
        return self.units

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        del scale
        return np.zeros(count, np.int64)


@pytest.fixture
def make_trainer(make_study: Studies, device: torch.device) -> Callable[..., PrivateTrainer]:
    def make(records: Dataset, units: Sequence[int] | NDArray[Any] | None, **privacy: Any) -> PrivateTrainer:
        study = make_study(privacy={"unit": "record" if units is None else "patient", **privacy})
        dataset = replace(records, units=None if units is None else np.asarray(units, dtype=np.int64))
        model = build(study).to(device)
        activations = open_activations(model, dataset, device, folder=None, limit_bytes=0)
        planned, rates = plan(study.privacy, steps=9), LearningRates(1.0, 1.0)
        return PrivateTrainer(model, activations, planned, divisor_size=10, learning_rates=rates, micro_batch_tokens=64)

    return make


def start(trainer: PrivateTrainer) -> NDArray[np.float32]:
    """A random adapter: at zero, B has no gradient."""
    drawn = np.random.default_rng(5).standard_normal(trainer.model.layout.length)
    return (0.2 * drawn).astype(np.float32)


def step_sum(trainer: PrivateTrainer, chosen: Sequence[int]) -> Vector:
    """The clipped sum of one step, before noise: with learning rate 1 the step is -sum / divisor."""
    update = trainer.train_round(start(trainer), factors=[1.0], randomness=Chosen(chosen))
    return -trainer.divisor * update.astype(np.float64)


def record_gradient(trainer: PrivateTrainer, index: int) -> Vector:
    """One record's gradient, through PyTorch's own layers and the uncut model, packed."""
    model, records = trainer.model, trainer.activations.records
    model.load(start(trainer))
    named = dict(model.named_parameters())
    parameters = [named[name] for name, _ in model.layout.tensors]
    with plain_linear_layers(model):
        batch = collate(records, [index], model.kind.fills, trainer.activations.device, step=1)
        loss = model.kind.losses(model(batch), batch)
        return np.concatenate([g.double().cpu().numpy().ravel() for g in torch.autograd.grad(loss.sum(), parameters)])


def naive_sum(trainer: PrivateTrainer, chosen: Sequence[int], *, clip: float, automatic: bool) -> Vector:
    """The oracle: a loop over units, in it a loop over single records."""
    units = trainer.activations.records.units
    assert units is not None
    total = np.zeros(trainer.model.layout.length)
    for unit in chosen:
        own = [record_gradient(trainer, int(row)) for row in np.flatnonzero(units == unit)]
        mean = np.mean(own, axis=0)
        for part, norm in clipped_together(trainer, clip):
            length = float(np.linalg.norm(mean[part]))
            total[part] += mean[part] * (norm / (length + 0.01 * norm) if automatic else min(1.0, norm / length))
    return total


def clipped_together(trainer: PrivateTrainer, clip: float) -> list[tuple[NDArray[np.bool_], float]]:
    """Which entries are clipped as one vector, and at which length."""
    tensors = trainer.model.layout.tensors
    head = np.concatenate([np.full(int(np.prod(shape)), name.startswith("head.")) for name, shape in tensors])
    share = trainer.plan.head_share
    if share is None:
        return [(np.ones_like(head), clip)]
    return [(head, clip * share**0.5), (~head, clip * (1 - share) ** 0.5)]


@pytest.mark.parametrize("clipping", ["automatic", "flat"])
@pytest.mark.parametrize("layers", ["last:1", "all"])
@pytest.mark.parametrize("clip", [0.05, 3.0])
@pytest.mark.parametrize("share", [None, 0.8])
def test_sum_is_that_of_a_loop_over_units(
    make_study: Studies,
    make_records: Records,
    make_trainer: Callable[..., PrivateTrainer],
    monkeypatch: pytest.MonkeyPatch,
    clipping: str,
    layers: str,
    clip: float,
    share: float | None,
) -> None:
    trainer = make_trainer(make_records(20), UNITS, clipping=clipping, clip_norm=clip, head_share=share)
    monkeypatch.setattr(private_training, "UNIT_SUMS_BYTES", 8 * 3 * trainer.model.layout.length)  # groups of 3 and 1
    chosen = [0, 1, 3, 4]
    expected = naive_sum(trainer, chosen, clip=clip, automatic=clipping == "automatic")
    np.testing.assert_allclose(step_sum(trainer, chosen), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.guarantee(
    "adding or removing one unit with all its records moves a step's sum by at most `sensitivity(clip_norm)`."
)
@pytest.mark.parametrize("clipping", ["automatic", "flat"])
@pytest.mark.parametrize("rows", [1, 300])
def test_one_unit_moves_the_sum_by_no_more_than_the_clipping_norm(
    make_records: Records, make_trainer: Callable[..., PrivateTrainer], clipping: str, rows: int
) -> None:
    clip = 0.5
    others, units = make_records(8 + rows), [0] * 4 + [1] * 4 + [2] * rows
    trainer = make_trainer(others, units, clipping=clipping, clip_norm=clip)
    difference = step_sum(trainer, [0, 1, 2]) - step_sum(trainer, [0, 1])
    assert 0 < float(np.linalg.norm(difference)) <= clip * (1 + 1e-5)


def test_a_unit_is_untouched_by_the_records_of_another(
    make_records: Records, records_of: Records, make_trainer: Callable[..., PrivateTrainer]
) -> None:
    one, other = make_records(10, seed=1), make_records(10, seed=2)
    parts = [(one if row < 5 else other, row) for row in range(10)]
    ids, targets = ([part[name][row].tolist() for part, row in parts] for name in ("ids", "target"))
    mixed = records_of(ids, [target[0] for target in targets])
    units = [0] * 5 + [1] * 5
    found = []
    for records in (one, mixed):
        trainer = make_trainer(records, units)
        trainer.model.load(start(trainer))
        trainer.per_unit_gradients(np.array([0, 1]))
        found.append([p.grad_sample.clone() for p in trainer.model.parameters() if p.requires_grad])  # type: ignore[attr-defined]
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(before[0], after[0], rtol=1e-6, atol=1e-8)
        assert not torch.equal(before[1], after[1])


def test_sampling_counts_units_and_single_records_keep_their_bytes(
    make_records: Records, make_trainer: Callable[..., PrivateTrainer]
) -> None:
    drawn, trainer = Chosen([1, 3]), make_trainer(make_records(20), UNITS)
    trainer.train_round(start(trainer), factors=[1.0], randomness=drawn)
    assert drawn.counts == [5]
    updates = []
    for units in (None, None, range(20)):
        trainer = make_trainer(make_records(20), units)
        randomness = SeededRandomnessForSimulation(0, "arm", "site", 1)
        updates.append(trainer.train_round(start(trainer), factors=[1.0, 0.5], randomness=randomness))
    assert updates[0].tobytes() == updates[1].tobytes()
    assert updates[0].tobytes() == updates[2].tobytes(), "units of one record each have the same whole numbers"


@pytest.mark.guarantee("a plan that hides more than single records is refused on records that are not grouped by unit.")
def test_plan_and_records_must_speak_of_the_same_unit(
    make_study: Studies, make_records: Records, make_trainer: Callable[..., PrivateTrainer]
) -> None:
    grouped = make_trainer(make_records(20), UNITS)
    with pytest.raises(ExactnessError, match="got single ones"):
        PrivateTrainer(
            grouped.model,
            open_activations(grouped.model, make_records(20), grouped.activations.device, folder=None, limit_bytes=0),
            grouped.plan,
            divisor_size=10,
            learning_rates=LearningRates(1.0, 1.0),
            micro_batch_tokens=64,
        )


def test_a_vault_trains_over_units(make_study: Studies, make_records: Records, tmp_path: Path) -> None:
    study = make_study(privacy={"unit": "patient"}, federation={"smallest_declared_size": 5})
    records = replace(make_records(20), units=UNITS.astype(np.int64))
    records.save(tmp_path / "records.npz")
    read = load(tmp_path / "records.npz")
    assert read.units is not None and (read.units == UNITS).all() and read.unit_count == 5

    def seeded(number: int) -> SeededRandomnessForSimulation:
        return SeededRandomnessForSimulation(0, "arm", "site", number)

    vault = RoundTrainer(study, build(study), read, declared_size=5, randomness=seeded)
    task = TrainTask(study.sha256, "run", 1, np.zeros(vault.model.layout.length, np.float32))
    assert vault.train(task).status is Status.TRAINED


@pytest.mark.guarantee("which of a unit's records are kept depends on that unit's records alone.")
@given(own=Rows, others=Rows)
def test_kept_records_depend_on_their_unit_alone(own: list[Any], others: list[Any]) -> None:
    def kept(rows: list[tuple[str, list[tuple[str, int]]]]) -> list[tuple[int, int]]:
        flat = [(unit, row) for unit, part in rows for row in part]
        ids, targets = [[ord(text), 7] for _, (text, _) in flat], [target for _, (_, target) in flat]
        fields = {"ids": ragged(ids, np.int32), "target": ragged(targets, np.int64)}
        dataset = Dataset(fields, np.ones(len(flat), dtype=bool))
        found = group(dataset, [unit for unit, _row in flat], records_per_unit=3, key=KEY)
        assert found.units is not None
        names = list(dict.fromkeys(unit for unit, _row in flat))
        mine = np.flatnonzero(found.units == names.index("own"))
        return sorted((int(found["ids"][i][0]), int(found["target"][i][0])) for i in mine)

    alone = kept([("own", own)])
    assert alone == kept([("other", others), ("own", own)]) == kept([("own", own), ("other", others)])
    assert len(alone) == min(3, len(own))


@pytest.mark.guarantee("a copy of a record changes nothing that is trained on.")
@given(
    rows=st.lists(st.tuples(st.integers(1, 4), st.integers(-1, 1)), min_size=1, max_size=12), copied=st.integers(0, 11)
)
def test_a_copy_changes_nothing(rows: list[tuple[int, int]], copied: int) -> None:
    def trained(part: list[tuple[int, int]]) -> set[tuple[int, int]]:
        ids, targets = zip(*part, strict=True)
        fields = {"ids": ragged([[i] for i in ids], np.int32), "target": ragged(list(targets), np.int64)}
        dataset = Dataset(fields, np.array(targets) >= 0)
        kept = dataset.select(rows_without_copies(dataset))
        found = [(int(kept["ids"][i][0]), int(kept["target"][i][0])) for i in range(len(kept)) if kept.usable[i]]
        assert len(found) == len(set(found))
        return set(found)

    assert trained([*rows, rows[copied % len(rows)]]) == trained(rows) == {row for row in rows if row[1] >= 0}


@pytest.mark.guarantee("all records of a unit share one split, which depends on the unit's value alone.")
def test_a_unit_shares_one_split() -> None:
    values = [f"patient {number % 40}" for number in range(200)] + ["", "  "]
    decided = unit_splits(values, key=KEY, holdout=0.3)
    assert {Split.TRAIN, Split.HOLDOUT} <= set(decided)
    assert decided[-2:] == [Split.NO_UNIT, Split.NO_UNIT]
    for number in range(40):
        assert len({decided[row] for row in range(number, 200, 40)}) == 1
    assert unit_splits([values[3]], key=KEY, holdout=0.3) == [decided[3]]
    assert len(set(splits_of([(value,) for value in values[:40]], key=KEY, holdout=0.3))) == 2


def test_policies_of_units_are_checked_and_a_finer_study_is_refused(make_study: Studies) -> None:
    declared = {"source": "x.csv", "epsilon": 3.0, "delta": 1e-5, "declared_size": 50, "models": ["a" * 64]}
    with pytest.raises(SettingsError, match="unit_column is needed"):
        parse(DatasetPolicy, declared | {"unit": "patient"}, where="test")
    with pytest.raises(SettingsError, match="only goes with a unit other"):
        parse(DatasetPolicy, declared | {"unit_column": "id"}, where="test")
    policy = parse(DatasetPolicy, declared | {"unit": "patient", "unit_column": "id"}, where="test")
    finer, same = make_study(), make_study(privacy={"unit": "patient"})
    assert any(
        "hides one record, the policy one patient" in said
        for said in objections(policy, finer, dimension=1, columns=())
    )
    assert not any("hides one" in said for said in objections(policy, same, dimension=1, columns=()))


def test_what_cannot_be_is_said(make_records: Records) -> None:
    with pytest.raises(DataError, match="one unit from 0 per record"):
        replace(make_records(5), units=np.array([0, 1], dtype=np.int64))
    with pytest.raises(DataError, match="a unit for each of 3 records, got 2"):
        group(make_records(3), ["a", "", "b"], records_per_unit=2, key=KEY)
