"""Families of text encoders and every adapter: gradients are each record's own, or the model is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from client.vault.training.gradient_probe import probe
from client.vault.training.linear_gradients import only_linear
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.privacy.noise_schedule import plan
from shared.study.declaration import Study

Studies, Families = Callable[..., Study], Callable[[str], Path]
SMALL: dict[str, Any] = {
    "vocab_size": 80,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SMALL)),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**SMALL)),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(
            vocab_size=80, dim=32, n_layers=2, n_heads=2, hidden_dim=48, initializer_range=0.2
        )
    ),
    "electra": lambda: transformers.ElectraModel(transformers.ElectraConfig(**SMALL, embedding_size=16)),
    "albert": lambda: transformers.AlbertModel(transformers.AlbertConfig(**SMALL, embedding_size=16)),
    "mpnet": lambda: transformers.MPNetModel(transformers.MPNetConfig(**SMALL)),
    "opt": lambda: transformers.OPTModel(
        transformers.OPTConfig(
            vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48, init_std=0.2
        )
    ),
}
BY_RULE = ("deberta-v2", "gemma3_text", "modernbert", "nomic_bert", "phi3", "qwen3")
"""Families without an entry of their own anywhere: the rule finds what is adapted, one layer for query, key and value
in some of them."""
FAMILIES |= {
    name: lambda name=name: transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(name, **SMALL, num_key_value_heads=2, pad_token_id=0)
    )
    for name in BY_RULE
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "ffa-lora": {},
    "lora": {"method": "lora"},
    "rank-stabilized": {"rank_stabilized": True, "alpha": 4.0},
    "ranks by layer": {"method": "lora", "rank_pattern": {"layer.1.*query": 2}},
    "dora": {"method": "dora"},
    "ia3": {"method": "ia3", "target_modules": ["query", "value", "output.dense"]},
    "head-only": {"method": "head-only"},
}


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Families:
    """A folder with a tiny random model of a family; made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            made[name] = tmp_path_factory.mktemp(name)
            FAMILIES[name]().save_pretrained(made[name])
            transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture
def trainer(make_study: Studies, family: Families, device: torch.device) -> Callable[..., PrivateTrainer]:
    def make(name: str, **adapter: Any) -> PrivateTrainer:
        linear = adapter.get("method", "ffa-lora") not in ("lora", "dora")
        study = make_study(
            model={"source": str(family(name))},
            adapter={"layers": "all", "rank": 4} | adapter,
            federation={"aggregation": "ffa" if linear else "fedit"},
        )
        model = build(study).to(device)
        records = model.kind.synthetic(model.config, [3, 4], variant=0)
        activations = open_activations(model, records, device, folder=None, limit_bytes=0)
        planned, rates = plan(study.privacy, steps=9), LearningRates(1.0, 1.0)
        return PrivateTrainer(
            model, activations, planned, divisor_size=600, learning_rates=rates, micro_batch_tokens=512
        )

    return make


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("layers", ["all", "last:1"])
def test_every_adapter_of_an_encoder_is_exact(
    trainer: Callable[..., PrivateTrainer], adapter: str, layers: str
) -> None:
    tested = trainer("bert", layers=layers, **ADAPTERS[adapter])
    assert probe(tested, cache=None).worst < 1e-5
    assert tested.linear == (adapter not in ("dora", "ia3")) == only_linear(tested.model)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "albert", "mpnet", "opt"])
@pytest.mark.parametrize("method", ["ffa-lora", "lora", "dora"])
def test_every_family_is_exact(trainer: Callable[..., PrivateTrainer], name: str, method: str) -> None:
    assert probe(trainer(name, method=method), cache=None).worst < 1e-5


@pytest.mark.parametrize("name", BY_RULE)
def test_a_family_that_the_rule_alone_knows_is_exact(trainer: Callable[..., PrivateTrainer], name: str) -> None:
    assert probe(trainer(name, method="lora"), cache=None).worst < 1e-5


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_model_that_flattens_records_and_tokens_is_exact_on_both_paths(
    trainer: Callable[..., PrivateTrainer], method: str
) -> None:
    assert probe(trainer("opt", method=method, target_modules=["fc1", "fc2"]), cache=None).worst < 1e-5


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "mpnet"])
@pytest.mark.parametrize(
    "adapter", [{"layers": "last:1"}, {"layers": "last:1", "method": "dora"}, {"method": "head-only"}]
)
def test_frozen_layers_of_every_family_are_kept(
    make_study: Studies, family: Families, check_cut: Callable[[Study], Any], name: str, adapter: dict[str, str]
) -> None:
    aggregation = "fedit" if adapter.get("method") == "dora" else "ffa"
    check_cut(
        make_study(
            model={"source": str(family(name))}, adapter={"rank": 4} | adapter, federation={"aggregation": aggregation}
        )
    )


@pytest.mark.parametrize("name", ["albert", "opt"])
def test_features_of_a_model_that_is_not_cut_are_kept_if_only_the_head_is_trained(
    make_study: Studies, family: Families, check_cut: Callable[[Study], Any], name: str
) -> None:
    check_cut(make_study(model={"source": str(family(name))}, adapter={"method": "head-only"}))


def test_what_cannot_be_vectorised_is_refused_by_name(
    trainer: Callable[..., PrivateTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer("bert", method="dora")
    whole = tested.model.losses

    def branches(batch: Any) -> Any:
        return whole(batch) if whole(batch).sum() > 0 else whole(batch) * 2  # control flow that depends on a record

    monkeypatch.setattr(tested.model, "losses", branches)
    with pytest.raises(ExactnessError, match="losses that can be vectorised over records"):
        probe(tested, cache=None)


def test_a_lack_of_memory_is_not_called_a_model_that_cannot_be_vectorised(
    trainer: Callable[..., PrivateTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer("bert", method="dora")

    def full(_batch: Any) -> Any:
        return torch.empty(2**58)

    monkeypatch.setattr(tested.model, "losses", full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        tested.per_example_gradients([0, 1])


def test_gradients_that_are_large_are_taken_a_few_records_at_a_time(
    trainer: Callable[..., PrivateTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = trainer("bert")
    every = np.arange(len(tested.activations.records))
    assert max(map(len, tested.physical_batches(every))) > 1
    monkeypatch.setattr("client.vault.training.trainer.GRADIENT_BYTES", 1)
    assert [len(part) for part in tested.physical_batches(every)] == [1] * len(every)


@pytest.mark.parametrize("method", ["ffa-lora", "dora"])
def test_half_precision_keeps_records_apart_and_gradients_in_single(
    trainer: Callable[..., PrivateTrainer], device: torch.device, method: str
) -> None:
    tested = trainer("bert", method=method)
    tested.precision = "bfloat16"
    error, in_half = probe(tested, cache=None).worst, tested.linear or device.type == "cpu"
    assert error < 0.1 and (error > 1e-5) is in_half
    tested.per_example_gradients(tested.physical_batches(np.arange(2))[0])
    assert {p.grad_sample.dtype for p in tested.model.parameters() if p.requires_grad} == {torch.float32}  # type: ignore[attr-defined]
