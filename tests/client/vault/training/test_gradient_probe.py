"""The probe passes what is exact and refuses what is not, by name."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shared
from client.vault.training import gradient_probe
from client.vault.training.gradient_probe import PACKAGES, _installed, code_digest, ensure_exact, probe, verdict_key
from client.vault.training.linear_gradients import make_per_example
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.privacy.noise_schedule import plan
from shared.records.batches import Batch
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study

Studies, Records = Callable[..., Study], Callable[..., Dataset]
Trainers = Callable[[Study, Dataset], PrivateTrainer]


@pytest.fixture
def trainer(device: torch.device) -> Trainers:
    def make(study: Study, records: Dataset) -> PrivateTrainer:
        model = build(study).to(device)
        activations = open_activations(model, records, device, folder=None, limit_bytes=0)
        planned, rates = plan(study.privacy, steps=9), LearningRates(1.0, 1.0)
        return PrivateTrainer(
            model, activations, planned, divisor_size=600, learning_rates=rates, micro_batch_tokens=512
        )

    return make


@pytest.mark.parametrize("adapter", [{"layers": "all"}, {"layers": "last:1"}, {"method": "head-only"}])
@pytest.mark.parametrize("cached", [True, False])
def test_bert_with_lora_is_exact(
    trainer: Trainers,
    make_study: Studies,
    make_records: Records,
    tmp_path: Path,
    adapter: dict[str, str],
    cached: bool,
) -> None:
    tested = trainer(make_study(adapter=adapter), make_records(5))
    before = tested.model.packed()
    assert probe(tested, cache=tmp_path if cached else None).worst < 1e-5
    assert np.array_equal(tested.model.packed(), before)
    assert list(tmp_path.iterdir()) == []


def coupled(kind: Any) -> Callable[[Tensor, Batch], Tensor]:
    """A loss that is averaged over the batch, as Hugging Face's own language-model loss is over tokens."""
    losses = kind.losses
    return lambda outputs, batch: losses(outputs, batch) * losses(outputs, batch).detach().mean()


def flattened(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A head that sees the records in another order, as layers that permute tokens do."""
    return lambda features: type(module).forward(module, features.flip(0)).flip(0)


@pytest.mark.guarantee(
    "a model or adapter for which per-example gradients are not exact is refused before any private step."
)
@pytest.mark.parametrize("fault", ["loss coupled over the batch", "records permuted", "gradient scaled", "frozen part"])
def test_inexact_gradients_are_refused(
    trainer: Trainers, make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    tested = trainer(make_study(adapter={"layers": "last:1"}), make_records(5))
    head = tested.model.head
    if fault == "loss coupled over the batch":
        monkeypatch.setattr(tested.model.kind, "losses", coupled(tested.model.kind))
    elif fault == "records permuted":
        monkeypatch.setattr(head, "forward", flattened(head))
    elif fault == "gradient scaled":
        honest = tested.model.losses
        monkeypatch.setattr(tested.model, "losses", lambda batch: 1.001 * honest(batch))
    else:
        whole = tested.model.outputs

        def short(batch: Batch) -> Tensor:
            return head(batch["states"].mean(1)) if "states" in batch else whole(batch)

        monkeypatch.setattr(tested.model, "outputs", short)
    with pytest.raises(ExactnessError, match="Expected"):
        probe(tested, cache=None)


@pytest.mark.parametrize("exact", [True, False])
def test_a_loop_that_rounds_too_much_is_run_again_in_double_precision(
    trainer: Trainers, make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    loop = gradient_probe._one_by_one

    def rounding(model: Any, *rest: Any) -> dict[str, Tensor]:
        single = next(model.parameters()).dtype == torch.float32
        return {name: value * (1.0001 if single else 1.0) for name, value in loop(model, *rest).items()}

    monkeypatch.setattr(gradient_probe, "_one_by_one", rounding)
    tested = trainer(make_study(adapter={"layers": "last:1"}), make_records(5))
    before = [(parameter.data_ptr(), parameter.dtype) for parameter in tested.model.parameters()]
    if exact:
        assert probe(tested, cache=None).worst < 1e-5
    else:
        honest = tested.model.losses
        monkeypatch.setattr(tested.model, "losses", lambda batch: 1.001 * honest(batch))
        with pytest.raises(ExactnessError, match="is off by"):
            probe(tested, cache=None)
    assert [(parameter.data_ptr(), parameter.dtype) for parameter in tested.model.parameters()] == before


def test_a_model_of_single_precision_alone_is_judged_by_that(
    trainer: Trainers, make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer(make_study(adapter={"layers": "last:1"}), make_records(5))
    head, honest = tested.model.head, tested.model.losses
    monkeypatch.setattr(head, "forward", lambda features: type(head).forward(head, features.float()))
    monkeypatch.setattr(tested.model, "losses", lambda batch: 1.001 * honest(batch))
    with pytest.raises(ExactnessError, match=r"is off by 1\.0e-03"):
        probe(tested, cache=None)


@pytest.mark.guarantee("no parameter is trained whose per-example gradient is not computed.")
def test_trainable_parameters_outside_linear_layers_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with pytest.raises(ExactnessError, match=r"1 \(LayerNorm\)"):
        make_per_example(model)


def test_verdict_is_remembered_for_this_configuration_only(
    trainer: Trainers,
    make_study: Studies,
    make_records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested = trainer(make_study(), make_records(5))
    ensure_exact(tested, cache=None, verdicts=tmp_path)
    monkeypatch.setattr("client.vault.training.gradient_probe.probe", lambda *_, **__: pytest.fail("probed again"))
    ensure_exact(tested, cache=None, verdicts=tmp_path)
    key = verdict_key(tested, cached=False)
    tested.micro_batch_tokens = 64
    assert verdict_key(tested, cached=False) != key != verdict_key(tested, cached=True)
    tested.micro_batch_tokens = 512
    hostile, threads = tested.model.packed(), torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # another split of matrix products, perhaps other bits
    more = verdict_key(tested, cached=False)
    torch.set_num_threads(threads)
    tested.activations.storage = "float16"
    keys = [key, more, verdict_key(tested, cached=False), verdict_key(tested, cached=False, hostile=hostile)]
    assert len(set(keys)) == 4


def test_a_changed_byte_of_our_code_changes_the_verdict_key(
    trainer: Trainers, make_study: Studies, make_records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer(make_study(), make_records(5))
    shutil.copytree(Path(shared.__path__[0]), tmp_path / "shared")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / "shared")
    _installed.cache_clear()
    keys = [verdict_key(tested, cached=False)]
    for changed in ("errors.py", "privacy/accounting.py"):
        with (tmp_path / "shared" / changed).open("a") as file:
            file.write("#")
        _installed.cache_clear()
        keys.append(verdict_key(tested, cached=False))
    _installed.cache_clear()
    assert len(set(keys)) == 3


def test_all_of_our_code_that_the_probe_can_reach_is_hashed() -> None:
    listed = "import sys, client.vault.training.gradient_probe; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in loaded if name.startswith(("client.", "shared."))]
    assert "client.vault.training.trainer" in ours
    assert [name for name in ours if not name.startswith(PACKAGES)] == []


def test_hashing_no_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExactnessError, match="Expected Python files"):
        code_digest([tmp_path])


def test_a_layer_that_is_used_twice_accumulates_both_uses() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    batch = make_per_example(layer)
    batch.records = 3
    layer(layer(x)).square().sum().backward()
    loss = nn.functional.linear(nn.functional.linear(x[1], layer.weight, layer.bias), layer.weight, layer.bias)
    expected = torch.autograd.grad(loss.square().sum(), layer.weight)[0]
    torch.testing.assert_close(layer.weight.grad_sample[1], expected, rtol=1e-5, atol=1e-5)
