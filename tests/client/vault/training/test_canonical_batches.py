"""A record's gradient has the same bits in any company, and a hostile adapter gains nothing from rounding."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.vault.training.gradient_probe import probe
from client.vault.training.trainer import LearningRates, PrivateTrainer, one_of_each
from client.vault.training.vmap_gradients import vectorised_gradients
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.privacy.grid import GRID, sensitivity
from shared.privacy.noise_schedule import plan
from shared.records.batches import canonical_shapes, collate, grouped
from shared.records.ragged import Records as Dataset
from shared.records.ragged import ragged, with_units
from shared.study.declaration import Study

Studies, Records = Callable[..., Study], Callable[..., Dataset]
ADAPTERS: dict[str, dict[str, Any]] = {
    "all": {"layers": "all"},
    "last": {"layers": "last:1"},
    "lora": {"method": "lora", "layers": "all"},
    "dora": {"method": "dora", "layers": "last:1"},
    "head": {"method": "head-only"},
}


class Everybody:
    """A step that draws the given units, and noise that is zero."""

    def __init__(self, units: Sequence[int]) -> None:
        self._units = np.array(units, np.int64)

    def step(self) -> "Everybody":
        return self

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        del count, sampling_rate
        return self._units

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        del scale
        return np.zeros(count, np.int64)


def trainer(study: Study, records: Dataset, *, typical: int = 3000) -> PrivateTrainer:
    model = build(study)
    activations = open_activations(model, records, torch.device("cpu"), folder=None, limit_bytes=0)
    rates = LearningRates(1.0, 1.0)
    planned = plan(study.privacy, steps=9)
    return PrivateTrainer(
        model, activations, planned, divisor_size=typical, learning_rates=rates, micro_batch_tokens=2048
    )


def summed(tested: PrivateTrainer, adapter: NDArray[np.float32], units: Sequence[int]) -> list[int]:
    """The whole numbers that noise would be added to."""
    tested.model.load(adapter)
    optimizer = tested.optimizer(tested.plan.release(1))
    for count in tested.gradients(np.array(units, np.int64)):
        optimizer.accumulate(count)
    return [] if optimizer.summed is None else [int(number) for number in optimizer.summed.tolist()]


def hostile(tested: PrivateTrainer, size: float, seed: int = 0) -> NDArray[np.float32]:
    """Huge rows of the head, beside a random adapter: rounding errors as large as the server likes."""
    generator = np.random.default_rng(seed)
    parts = [
        (size if name.startswith("head.") else 0.3) * generator.standard_normal(int(np.prod(shape)))
        for name, shape in tested.model.layout.tensors
    ]
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.guarantee(
    "a record's gradient has the same bits whoever shares its physical batch and wherever it stands there."
)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_one_record_changes_no_bit_of_the_others(make_study: Studies, make_records: Records, adapter: str) -> None:
    records = make_records(60)
    aggregation = "fedit" if adapter in ("lora", "dora") else "ffa"
    tested = trainer(make_study(adapter=ADAPTERS[adapter], federation={"aggregation": aggregation}), records)
    sizes = [len(part) for part in tested.physical_batches(np.arange(60))]
    assert adapter == "dora" or max(sizes) > 1, "records do share batches"

    @settings(max_examples=12, derandomize=True, database=None)
    @given(
        st.lists(st.integers(0, 59), min_size=2, max_size=40, unique=True),
        st.sampled_from([0.3, 1e3, 1e9, 1e30]),
        st.integers(0, 100),
    )
    def property_holds(units: list[int], size: float, seed: int) -> None:
        adapter_vector = hostile(tested, size, seed)
        everybody = summed(tested, adapter_vector, units)
        fewer = summed(tested, adapter_vector, units[1:])
        own = summed(tested, adapter_vector, units[:1])
        assert [a - b for a, b in zip(everybody, fewer, strict=True)] == own
        clip = tested.plan.clip_norm
        assert sum(number**2 for number in own) * (GRID * clip) ** 2 <= sensitivity(clip) ** 2

    property_holds()


@pytest.mark.guarantee(
    "adding or removing one unit with all its records moves a step's sum by at most `sensitivity(clip_norm)`."
)
def test_one_unit_of_many_records_changes_no_bit_of_the_others(make_study: Studies, make_records: Records) -> None:
    records = with_units(make_records(60), np.random.default_rng(3).integers(0, 12, 60))
    tested = trainer(make_study(privacy={"unit": "patient"}, adapter={"layers": "all"}), records)
    for size in (0.3, 1e6):
        adapter = hostile(tested, size)
        everybody, own = summed(tested, adapter, range(12)), summed(tested, adapter, [0])
        fewer = summed(tested, adapter, range(1, 12))
        assert [a - b for a, b in zip(everybody, fewer, strict=True)] == own and any(own)


def test_no_mask_is_left_out_because_all_records_are_as_long_as_their_batch(
    make_study: Studies, records_of: Records
) -> None:
    """Models leave out a mask of ones, and compute other bits without one."""
    long = [[6 + n] * 16 for n in range(6)]
    alike = records_of(long, [0] * 6)
    mixed = records_of([*long[:5], [7] * 13], [0] * 6)
    study = make_study(adapter={"layers": "all"})
    sums = []
    for records in (alike, mixed):
        tested = trainer(study, records)
        sums.append(summed(tested, hostile(tested, 3.0), range(5)))
    assert sums[0] == sums[1]


def test_no_batch_is_longer_than_the_model_reads(make_study: Studies, records_of: Records) -> None:
    records = records_of([[6] * 64, [7] * 64, [8] * 63, [9] * 64], [0, 1, 0, 1])  # the model has 64 positions
    tested = trainer(make_study(task={"max_length": 64}, adapter={"layers": "all"}), records)
    assert tested.physical_batches(np.arange(4)) == [[2], [0, 1, 3]], "padded and full records stay apart"
    adapter = hostile(tested, 1.0)
    everybody, fewer, own = (summed(tested, adapter, units) for units in ([0, 1, 2, 3], [1, 2, 3], [0]))
    assert [a - b for a, b in zip(everybody, fewer, strict=True)] == own and any(own)
    assert tested.raised == set()


@given(st.lists(st.integers(1, 70), min_size=1, max_size=80), st.integers(1, 9))
def test_a_shape_follows_from_the_records_own_length(lengths: list[int], rows: int) -> None:
    fills, values = {"ids": 0}, [[5] * length for length in lengths]
    records = Dataset({"ids": ragged(values, np.int32)}, np.ones(len(lengths), bool))
    shapes = canonical_shapes(records, fills)
    for index, length in enumerate(lengths):
        by_itself = canonical_shapes(records.select(np.array([index])), fills)[0].tolist()
        assert shapes[index].tolist() == by_itself == [-(-length // 8) * 8, length % 8 == 0]
    keys = [tuple(shape) for shape in shapes.tolist()]
    parts = grouped(keys, np.arange(len(lengths)), dict.fromkeys(keys, rows))
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) <= rows and len({keys[index] for index in part}) == 1
        batch = collate(records, part, fills, torch.device("cpu"))
        assert batch["ids"].shape == (len(part), keys[part[0]][0])
        assert bool(batch["mask"].all()) == bool(keys[part[0]][1]), "either no row has padding, or every row"


@given(st.lists(st.integers(0, 6), max_size=40))
def test_a_gpu_never_adds_twice_to_one_place_at_once(units: list[int]) -> None:
    turns = [places.tolist() for places in one_of_each(np.array(units, np.int64))]
    assert sorted(place for turn in turns for place in turn) == list(range(len(units)))
    assert all(len({units[place] for place in turn}) == len(turn) for turn in turns)
    for unit in set(units):
        order = [place for turn in turns for place in turn if units[place] == unit]
        assert order == sorted(order), "the order of additions is that of the records"


@pytest.mark.guarantee("a record that makes the model raise has a gradient of zero, and changes no other record's.")
@pytest.mark.parametrize("method", ["dora", "ia3"])
def test_a_record_that_raises_where_gradients_are_vectorised_counts_as_nothing(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    records = make_records(12)
    aggregation = "fedit" if method == "dora" else "ffa"
    study = make_study(adapter={"method": method, "layers": "all"}, federation={"aggregation": aggregation})
    tested, poison = trainer(study, records), records["ids"][7].tolist()
    adapter = hostile(tested, 1.0)
    expected = summed(tested, adapter, [n for n in range(12) if n != 7])

    def raising(model: Any, batch: Any) -> None:
        if poison in batch["ids"].tolist():
            raise RuntimeError("index out of range")
        vectorised_gradients(model, batch)

    monkeypatch.setattr("client.vault.training.trainer.vectorised_gradients", raising)
    assert summed(tested, adapter, range(12)) == expected and any(expected)
    assert tested.raised == {7}


@pytest.mark.guarantee(
    "a record that makes frozen layers raise changes no other record's activations, and stops nothing."
)
@pytest.mark.guarantee("a record that makes the model raise has a gradient of zero, and changes no other record's.")
@pytest.mark.parametrize("where", ["trained part", "frozen part", "cached frozen part"])
@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_record_that_raises_counts_as_nothing(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, where: str, unit: str
) -> None:
    records = make_records(30)
    if unit == "patient":
        records = with_units(records, np.arange(30) // 2)
    study = make_study(adapter={"layers": "last:1"}, privacy={"unit": unit})
    poison = records["ids"][7].tolist()
    clean = trainer(study, records)
    adapter = hostile(clean, 1.0)
    units = [n for n in range(records.unit_count) if n != (7 if unit == "record" else 3)]
    expected = summed(clean, adapter, units)

    model, tested = clean.model, clean
    if where == "trained part":
        honest = model.losses
        states = clean.activations.states([7])[0]

        def losses(batch: Any) -> Any:
            if any(torch.equal(row[: len(states)], states) for row in batch["states"]):
                raise RuntimeError("index out of range")
            return honest(batch)

        monkeypatch.setattr(model, "losses", losses)
    else:
        frozen = model.frozen_states

        def raising(batch: Any) -> Any:
            if any(row[: len(poison)].tolist() == poison for row in batch["ids"]):
                raise RuntimeError("index out of range")
            return frozen(batch)

        monkeypatch.setattr(model, "frozen_states", raising)
        if where == "cached frozen part":
            tested.train_on(open_activations(model, records, torch.device("cpu"), folder=tmp_path, limit_bytes=2**30))
    everybody = summed(tested, adapter, range(records.unit_count))
    if unit == "record":
        assert everybody == expected
    else:  # the other record of its unit is still there
        assert [a - b for a, b in zip(everybody, expected, strict=True)] == summed(tested, adapter, [3])
    assert tested.raised == ({7} if where == "trained part" else set())


@pytest.mark.guarantee(
    "a path on which one record's presence changes a bit of another's gradient trains records one by one."
)
def test_bits_that_depend_on_company_end_shared_batches(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer(make_study(adapter={"layers": "last:1"}), make_records(12))
    honest = tested.model.losses
    assert not probe(tested, cache=None).one_by_one

    def coupled(batch: Any) -> Any:
        losses = honest(batch)
        company = torch.frac(1e3 * losses.detach().sum())
        return losses * (1 + 1e-6 * (len(losses) > 1) * company)  # some last bits, as kernels may do

    monkeypatch.setattr(tested.model, "losses", coupled)
    assert probe(tested, cache=None).one_by_one
    tested.one_by_one = True
    assert {len(part) for part in tested.physical_batches(np.arange(12))} == {1}
    assert not probe(tested, cache=None).one_by_one


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), OSError("disk")])
def test_what_no_record_causes_ends_the_round(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """How much memory is left depends on who else is there: zeros for its lack would be others' zeros."""
    tested = trainer(make_study(adapter={"layers": "last:1"}), make_records(6))

    def full(_batch: Any) -> Any:
        raise error

    for part in ("losses", "frozen_states"):
        with monkeypatch.context() as patch:
            patch.setattr(tested.model, part, full)
            with pytest.raises(type(error)):
                summed(tested, hostile(tested, 1.0), range(6))
    assert tested.raised == set()


def test_a_probe_whose_records_raise_is_no_proof(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer(make_study(task={"max_length": 64}, adapter={"layers": "last:1"}), make_records(6))
    honest = tested.model.losses

    def raising(batch: Any) -> Any:
        if batch["states"].shape[1] > 32:
            raise IndexError("index 40 is out of bounds")
        return honest(batch)

    monkeypatch.setattr(tested.model, "losses", raising)
    with pytest.raises(ExactnessError, match="one raised"):
        probe(tested, cache=None)


def test_frozen_layers_whose_bits_depend_on_company_are_refused(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    tested = trainer(make_study(adapter={"layers": "last:1"}), make_records(6))
    honest = tested.model.frozen_states

    def by_place(batch: Any) -> Any:
        states = honest(batch)
        return states * (1 + 3e-7 * torch.arange(len(states)).view(-1, 1, 1))

    monkeypatch.setattr(tested.model, "frozen_states", by_place)
    for cache in (None, tmp_path):
        with pytest.raises(ExactnessError, match="each record's own"):
            probe(tested, cache=cache)
