"""Four bits a number: always the same bytes, those of the published format, and a gradient of the input alone."""

import hashlib
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from shared.adapted_model.model import build
from shared.base_models.four_bits import BLOCK, LEVELS, FourBitLinear, dequantised, plain_gradients, quantise, quantised
from shared.study.declaration import Study

Studies = Callable[..., Study]
GOLDEN = "110ab95603cb6a79492069db6cfb72162b2656749c7a7b28532aedb556e83e51"


def weights() -> torch.Tensor:
    drawn = np.random.default_rng(5).standard_normal((24, 64)).astype(np.float32)
    drawn[1] = 0
    drawn[2, :3] = 1e-39
    return torch.from_numpy(drawn) * torch.logspace(-3, 3, 24)[:, None]


def layer(matrix: torch.Tensor) -> FourBitLinear:
    linear: nn.Linear = nn.Linear(matrix.shape[1], matrix.shape[0]).requires_grad_(False)
    with torch.no_grad():
        linear.weight.copy_(matrix)
    whole = nn.Sequential(linear)
    whole.get_output_embeddings, whole.can_generate = lambda: None, lambda: False  # type: ignore[assignment]
    quantise(whole)  # type: ignore[arg-type]
    assert isinstance(linear, FourBitLinear)
    return linear


@pytest.mark.guarantee("every machine makes the same bytes of the same weights, and ever will.")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_bytes_are_those_that_they_always_were(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        packed, scales = quantised(weights())
    finally:
        torch.set_num_threads(before)
    assert hashlib.sha256(packed.numpy().tobytes() + scales.numpy().tobytes()).hexdigest() == GOLDEN


def test_each_number_becomes_the_nearest_level_of_its_block() -> None:
    """Oracle: a loop over single numbers and all sixteen levels."""
    matrix = weights()
    packed, scales = quantised(matrix)
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().tolist()
    for place, number in enumerate(matrix.flatten().tolist()):
        scale = float(scales[place // BLOCK])
        distances = [abs(number - level * scale) for level in LEVELS]
        assert distances[codes[place]] <= min(distances) + 1e-6 * scale
    back = dequantised(packed, scales, (24, 64), torch.float32)
    assert torch.equal(back, back.bfloat16().float()) and torch.equal(back[1], torch.zeros(64))


def test_the_format_is_that_of_bitsandbytes() -> None:
    """Oracle: bitsandbytes, where somebody has installed it; nothing here needs it."""
    folder = os.environ.get("BITSANDBYTES")  # a folder to import it from: PEFT would import it for every other test
    if folder is None:
        pytest.skip("BITSANDBYTES names no folder")
    sys.path.append(folder)
    peer = pytest.importorskip("bitsandbytes.functional")
    sys.path.remove(folder)
    packed, scales = quantised(weights())
    theirs, state = peer.quantize_4bit(weights(), blocksize=BLOCK, quant_type="nf4", compress_statistics=False)
    assert torch.equal(packed, theirs.flatten()) and torch.equal(scales, state.absmax)
    back = peer.dequantize_4bit(theirs, state).to(torch.bfloat16)
    assert torch.equal(dequantised(packed, scales, (24, 64), torch.bfloat16), back)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_only_the_input_gets_a_gradient_and_it_is_that_of_the_unpacked_matrix(dtype: torch.dtype) -> None:
    linear = layer(weights())
    x = torch.randn(3, 5, 64, dtype=dtype, requires_grad=True)
    linear.bias.data = linear.bias.data.to(dtype)
    plain = nn.Linear(64, 24, dtype=dtype)
    with torch.no_grad():
        plain.weight.copy_(dequantised(linear.weight, linear.scales, (24, 64), dtype))
        plain.bias.copy_(linear.bias)
    upstream = torch.randn(3, 5, 24, dtype=dtype)
    (expected,) = torch.autograd.grad(plain(x), x, upstream)
    (ours,) = torch.autograd.grad(linear(x), x, upstream)
    with plain_gradients(linear):
        (theirs,) = torch.autograd.grad(linear(x), x, upstream)
    assert torch.equal(linear(x), plain(x)) and torch.equal(ours, expected) and torch.equal(theirs, expected)
    assert linear.weight.grad is None and not linear.plain


def test_matrices_of_frozen_layers_alone_are_quantised_and_keep_their_names(make_study: Studies) -> None:
    in_full, held = (build(make_study(model={"base_weights": kind})) for kind in ("float32", "4bit"))
    quantised_layers = [name for name, module in held.named_modules() if isinstance(module, FourBitLinear)]
    assert any("query.base_layer" in name for name in quantised_layers)
    assert not any("lora_" in name or name.startswith("head") for name in quantised_layers)
    assert [name for name, _ in held.named_parameters()] == [name for name, _ in in_full.named_parameters()]
    assert held.layout == in_full.layout and np.array_equal(held.start, in_full.start)
