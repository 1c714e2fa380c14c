"""Memory: what fits is measured without a record, and running out changes no bit, no draw and no charge."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client.vault.training.gradient_probe import Verdict
from client.vault.training.micro_batches import (
    BESIDE_KEPT,
    FEWEST_TOKENS,
    KeptForBackward,
    estimated,
    fitting_tokens,
    measured_bytes,
)
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.thrift_probe import thrifts
from client.vault.training.trainer import PrivateTrainer
from shared.adapted_model.model import build
from shared.base_models.four_bits import FourBitLinear
from shared.base_models.load import load_base
from shared.base_models.locate import find
from shared.errors import lacks_memory
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.records.batches import collate
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Studies, Records = Callable[..., Study], Callable[..., Dataset]
NO_MEMORY = {
    "a GPU's": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a CPU's": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    "Python's": MemoryError(),
}
GIB = 2**30


@pytest.fixture(autouse=True)
def _probed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(0.0, one_by_one=False)
    monkeypatch.setattr("client.vault.training.round_trainer.ensure_exact", lambda *_, **__: verdict)


class Counting(SeededRandomnessForSimulation):
    steps = 0

    def step(self) -> Any:
        Counting.steps += 1
        return super().step()


def node(study: Study, records: Dataset) -> RoundTrainer:
    return RoundTrainer(study, build(study), records, declared_size=640, randomness=lambda number: Counting(1, number))


def trained(tested: RoundTrainer) -> TrainReply:
    return tested.train(TrainTask(tested.study.sha256, "run", 1, np.zeros(tested.model.layout.length, np.float32)))


def fit(**performance: Any) -> dict[str, Any]:
    return {"fit_memory": True, "micro_batch_tokens": 128, **performance}


@pytest.mark.guarantee(
    "where memory runs out the same records are summed again, to the same bits, and get noise once; where the probe "
    "has not shown the same bits, the round fails."
)
@pytest.mark.parametrize(
    ("kind", "adapter"), [("a GPU's", {"layers": "last:1"}), ("Python's", {"method": "head-only"})]
)
def test_a_step_without_memory_is_begun_again_to_the_same_bits_and_noise(
    make_study: Studies,
    make_records: Records,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    adapter: dict[str, str],
) -> None:
    study = make_study(performance=fit(), adapter=adapter)
    records, honest = make_records(60), PrivateTrainer.per_example_gradients
    Counting.steps = 0
    usual = trained(node(study, records))
    draws, Counting.steps = Counting.steps, 0
    short = node(study, records)
    trainer, seen = short.trainer(), list[int]()
    ways = trainer.thrifts
    assert ways == 1

    def failing(self: PrivateTrainer, indices: Any) -> None:
        seen.append(self.thrift)
        if len(seen) > 2 and self.thrift < ways:  # in the middle of a batch
            raise NO_MEMORY[kind]
        honest(self, indices)

    monkeypatch.setattr(PrivateTrainer, "per_example_gradients", failing)
    reply = trained(short)
    assert reply.status is Status.TRAINED and reply.update.tobytes() == usual.update.tobytes()
    assert (Counting.steps, max(seen)) == (draws, ways)
    assert (trainer.thrift, trainer.raised, usual.update.any()) == (ways, set(), True)


@pytest.mark.parametrize("kind", ["a CPU's"])
def test_without_a_way_that_was_shown_to_keep_bits_the_round_fails(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def failing(self: PrivateTrainer, indices: Any) -> None:
        raise NO_MEMORY[kind]

    tested = node(make_study(performance={"micro_batch_tokens": 128}), make_records(60))
    assert tested.trainer().thrifts == 0
    monkeypatch.setattr(PrivateTrainer, "per_example_gradients", failing)
    reply = trained(tested)
    assert reply.status is Status.FAILED and not reply.update.any() and tested.broken


@pytest.mark.guarantee("a way to need less memory that changes a bit of a gradient is never taken.")
@pytest.mark.parametrize(("changes_at", "shown"), [(1, 0), (99, 1)])
def test_a_way_that_changes_a_bit_of_a_synthetic_record_is_not_taken(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, changes_at: int, shown: int
) -> None:
    trainer, honest = (
        node(make_study(performance=fit()), make_records(60)).trainer(),
        PrivateTrainer.per_example_gradients,
    )

    def changing(self: PrivateTrainer, indices: Any) -> None:
        honest(self, indices)
        if self.thrift >= changes_at:
            parameter = next(p for p in self.model.parameters() if p.requires_grad)
            parameter.grad_sample[0] *= 1 + 2**-20  # type: ignore[attr-defined]

    monkeypatch.setattr(PrivateTrainer, "per_example_gradients", changing)
    before = trainer.model.packed()
    assert thrifts(trainer, cache=None) == shown
    assert trainer.thrift == 0 and np.array_equal(trainer.model.packed(), before)


@pytest.mark.guarantee(
    "no way to need less memory changes the shape of a physical batch, on which kernels' bits depend."
)
@pytest.mark.parametrize("adapter", [{"layers": "all"}, {"method": "head-only"}])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_way_to_need_less_memory_changes_a_shape(
    make_study: Studies, make_records: Records, adapter: dict[str, str], checkpointing: bool
) -> None:
    """With other shapes some records' gradients have other bits, and no probe of a few records shows which."""
    performance = fit(activation_checkpointing=checkpointing)
    trainer = node(make_study(performance=performance, adapter=adapter), make_records(60)).trainer()
    trainer.divisor = 1e6
    shapes = [(length, full) for length in range(8, 65, 8) for full in (0, 1)]
    usual = [trainer.rows_of(shape) for shape in shapes]
    assert trainer.thrifts == (not checkpointing) and max(usual) > 1
    for ways in range(1, trainer.thrifts + 1):
        trainer.thrift = ways
        assert [trainer.rows_of(shape) for shape in shapes] == usual


@pytest.mark.guarantee("how large physical batches are follows from the device, the study and synthetic records alone.")
def test_tokens_are_halved_until_the_longest_synthetic_records_fit(make_study: Studies, make_records: Records) -> None:
    trainer = node(make_study(performance={"micro_batch_tokens": 1024}), make_records(60)).trainer()
    asked = list[int]()

    def needed(tested: PrivateTrainer) -> int:
        asked.append(tested.micro_batch_tokens)
        if tested.micro_batch_tokens == 1024:
            raise NO_MEMORY["a GPU's"]
        return tested.micro_batch_tokens * GIB

    def fitted(most: int) -> int:
        return fitting_tokens(trainer, needed=needed, room=lambda _device: most * GIB)

    assert [fitted(most) for most in (512, 511, 1)] == [512, 256, FEWEST_TOKENS]
    assert asked[:3] == [1024, 512, 1024] and trainer.micro_batch_tokens == 1024
    for records in (make_records(60), make_records(0)):
        sizes = node(make_study(performance=fit()), records).trainer().micro_batch_tokens
        assert sizes == 128, "this machine has room for so few"


def test_what_is_measured_grows_with_the_batch_and_shrinks_with_layers_computed_again(
    make_study: Studies, make_records: Records
) -> None:
    study = make_study(adapter={"layers": "all"}, task={"max_length": 64}, performance={"micro_batch_tokens": 512})
    trainer = node(study, make_records(60)).trainer()
    trainer.divisor = 640.0
    weights = sum(p.nbytes for p in trainer.model.parameters())
    many = measured_bytes(trainer)
    trainer.micro_batch_tokens = 128
    few = measured_bytes(trainer)
    trainer.checkpointing = True
    again = measured_bytes(trainer)
    assert weights < again < few < many and many - weights > 3 * (few - weights)


@pytest.mark.parametrize("held", ["float32", "bfloat16", "4bit"])
def test_weights_are_estimated_as_they_are_held_and_a_batch_by_what_it_keeps(make_study: Studies, held: str) -> None:
    """Oracle: the model itself, loaded, and what its own forward pass keeps."""
    declared: dict[str, Any] = {
        "model": {"base_weights": held},
        "adapter": {"layers": "all"},
        "task": {"max_length": 64},
    }
    study = make_study(**declared)
    files, model = find(study.model), build(study)
    base = load_base(files, task_kind(study.task).auto, base_weights=study.model.base_weights)
    need, more = (estimated(study, files, tokens=tokens) for tokens in (64, 640))
    assert (
        need.weights
        == more.weights
        == sum(tensor.nbytes for tensor in base.parameters())
        + sum(module.scales.nbytes for module in base.modules() if isinstance(module, FourBitLinear))
    )
    records = model.kind.synthetic(model.config, [64], variant=0)
    batch = collate(records, [0], model.kind.fills, torch.device("cpu"))
    counted = KeptForBackward(model)
    with counted:
        model.losses(batch)
    assert need.batch is not None and more.batch is not None
    assert 0.7 < need.batch / (BESIDE_KEPT * counted.bytes) < 1.5 and 9 < more.batch / need.batch < 11
    again = make_study(**declared, performance={"activation_checkpointing": True})
    assert (estimated(again, files, tokens=64).batch or 0) < need.batch / 2


@pytest.mark.parametrize("error", [ValueError("memory"), RuntimeError("shape mismatch"), OSError("out of memory")])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not lacks_memory(error) and all(map(lacks_memory, NO_MEMORY.values()))
