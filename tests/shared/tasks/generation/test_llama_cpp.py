"""A language model's adapter as GGUF holds what PEFT's does, and llama.cpp computes the same from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from server.export.adapter import as_peft, export
from server.export.llama_cpp import ADAPTER, write_gguf
from shared.errors import SettingsError
from shared.study.declaration import Study
from tests.support.gguf_base import write_base

Studies = Callable[..., Study]
TASK: dict[str, Any] = {"kind": "causal-lm", "form": "prompt-response", "max_length": 64}
PROMPTS, LENGTH = 10, 12


def tensors(path: Path) -> dict[str, Any]:
    return {one.name: np.array(one.data) for one in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    ("ranks", "largest"),
    [
        ({}, 3),
        ({"rank_pattern": {"1.self_attn.q_proj": 6, "layers.0.*v_proj": 2}}, 6),
        ({"rank_pattern": {"layers.1.*q_proj": 6}, "rank_stabilized": True, "alpha": 5.0}, 6),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_products_are_pefts_and_queries_have_llama_cpps_order(
    language_study: Studies, randomised: Any, tmp_path: Path, ranks: dict[str, Any], largest: int
) -> None:
    study = language_study("llama", TASK, method="lora", rank=3, layers="all", **ranks)
    export(study, randomised(study).packed(), tmp_path / "adapter")
    assert write_gguf(tmp_path / "adapter", tmp_path / "gguf") == largest
    written, peft = tensors(tmp_path / "gguf" / ADAPTER), as_peft(tmp_path / "adapter")
    base: Any = peft.get_base_model()
    heads = base.config.num_attention_heads
    for number, layer in enumerate(base.model.layers):
        for ours, theirs in (("attn_q", "q_proj"), ("attn_v", "v_proj")):
            product = written[f"blk.{number}.{ours}.weight.lora_b"] @ written[f"blk.{number}.{ours}.weight.lora_a"]
            delta = getattr(layer.self_attn, theirs).get_delta_weight("default").detach().numpy()
            if ours == "attn_q":
                assert not np.allclose(product, delta), "halves of a head become neighbours"
                half = len(delta) // heads // 2
                delta = delta.reshape(heads, 2, half, -1).transpose(0, 2, 1, 3).reshape(delta.shape)
            np.testing.assert_allclose(product, delta, atol=1e-6)
    facts = gguf.GGUFReader(tmp_path / "gguf" / ADAPTER).fields
    assert facts["adapter.type"].contents() == "lora" and facts["adapter.lora.alpha"].contents() == largest


def test_a_model_whose_names_llama_cpp_changes_is_refused(
    language_study: Studies, randomised: Any, tmp_path: Path
) -> None:
    study = language_study("gpt2", TASK)
    export(study, randomised(study).packed(), tmp_path / "adapter")
    with pytest.raises(SettingsError, match="Expected a base model of type llama"):
        write_gguf(tmp_path / "adapter", tmp_path / "gguf")
    assert not (tmp_path / "gguf").exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["tiny", "data/models/smollm2"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_llama_cpp_computes_what_peft_does(
    source: str, language_study: Studies, randomised: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="make test-all builds llama-cpp-python, where a compiler is")
    study = language_study("llama", TASK, rank=4)
    if source != "tiny":
        declared = study.model_dump()
        declared["model"]["source"], declared["adapter"]["layers"] = source, "last:4"
        study = Study.model_validate(declared)
    export(study, randomised(study).packed(), tmp_path / "adapter")
    write_gguf(tmp_path / "adapter", tmp_path / "gguf")
    write_base(Path(study.model.source), tmp_path / "base.gguf")
    full = llama_cpp.GGML_TYPE_F32  # half of the digits by default, in the memory of keys and values
    paths, keys = {"lora_path": str(tmp_path / "gguf" / ADAPTER)}, {"type_k": full, "type_v": full}
    served = llama_cpp.Llama(str(tmp_path / "base.gguf"), **paths, **keys, logits_all=True, n_ctx=64, verbose=False)
    peft, drawn, moved = as_peft(tmp_path / "adapter"), np.random.default_rng(0), 0.0
    vocabulary = peft.get_base_model().config.vocab_size
    for _ in range(PROMPTS):
        ids = drawn.integers(0, vocabulary, LENGTH)
        served.reset()
        served.eval(ids.tolist())
        with torch.no_grad():
            expected = peft(input_ids=torch.tensor(ids[None])).logits[0].numpy()
            with peft.disable_adapter():
                moved = max(moved, np.abs(peft(input_ids=torch.tensor(ids[None])).logits[0].numpy() - expected).max())
        np.testing.assert_allclose(np.array(served.scores[:LENGTH]), expected, atol=1e-2)
    assert moved > 0.1, "the adapter is at work"
