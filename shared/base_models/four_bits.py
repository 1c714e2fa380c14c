"""Hold the matrices of frozen linear layers in four bits a number, and compute with them in bfloat16.

The format is NF4 (Dettmers et al. 2023, arXiv:2305.14314) as bitsandbytes writes it without its second quantisation:
blocks of 64 numbers, each with one float32 scale, two numbers a byte. Making it takes comparisons, one division and one
product for each number, all of which every machine rounds alike: so every machine makes the same bytes. Nothing of
bitsandbytes is needed to run it; it may fetch kernels while it runs, and a node runs only code that was installed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

BLOCK = 64
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""What the sixteen codes stand for, as parts of a block's largest number."""
SMALLEST_SCALE = 1e-38
BITS_PER_WEIGHT = 4 + 32 / BLOCK


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix's codes, two a byte, and the scale of each block.

    Guarantee: every machine makes the same bytes of the same weights, and ever will.

    Args:
        weight: of whole blocks.
    """
    levels = torch.tensor(LEVELS)
    blocks = weight.detach().float().reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1)
    parts = (blocks * (1.0 / scales.clamp(min=SMALLEST_SCALE))[:, None]).clamp(-1, 1).flatten()
    codes = torch.bucketize(parts, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8)
    return (codes[::2] << 4) | codes[1::2], scales


def dequantised(packed: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return the matrix that codes and scales stand for, rounded once, to bfloat16, whatever the type returned."""
    levels = torch.tensor(LEVELS, device=packed.device)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)  # what each byte stands for
    blocks = pairs[packed.int()].view(-1, BLOCK) * scales[:, None]
    return blocks.to(torch.bfloat16).to(dtype).view(shape)


class _Linear(torch.autograd.Function):
    """y = x Wᵀ + b whose backward pass unpacks W again and returns the gradient of x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None, layer: nn.Linear) -> Tensor:
        ctx.packed, ctx.scales, ctx.shape = packed, scales, (layer.out_features, layer.in_features)
        return F.linear(x, dequantised(packed, scales, ctx.shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = upstream
        return gradient @ dequantised(ctx.packed, ctx.scales, ctx.shape, gradient.dtype), None, None, None, None


class FourBitLinear(nn.Linear):
    """A frozen linear layer whose matrix is unpacked for each use, and kept for none."""

    scales: Tensor
    plain: bool = False
    """Whether PyTorch's own gradient is used: the oracle must not run the code that it checks."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.Linear gave it
        """Compute what `nn.Linear` does with the unpacked matrix."""
        if self.plain:
            plain: Tensor = checkpoint(self._plain, input, use_reentrant=False)  # a whole model unpacked is too much
            return plain
        result: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.scales, self.bias, self
        )
        return result

    def _plain(self, x: Tensor) -> Tensor:
        shape = (self.out_features, self.in_features)
        return F.linear(x, dequantised(self.weight, self.scales, shape, x.dtype), self.bias)


def quantise(model: PreTrainedModel) -> None:
    """Turn the linear layers of a frozen model into `FourBitLinear` ones, in place; names stay.

    A language head, layers that the model's authors keep in single precision, and matrices that do not fill whole
    blocks stay as they are.
    """
    for module in layers_to_quantise(model):
        packed, scales = quantised(module.weight)
        module.__class__ = FourBitLinear
        module.weight = nn.Parameter(packed, requires_grad=False)
        module.register_buffer("scales", scales)


def widen(model: nn.Module) -> None:
    """Hold a frozen model in float32, in place, with the numbers that its short weights stand for; names stay.

    What it computes then is what the short weights mean, without the rounding of each layer's outputs.
    """
    for module in model.modules():
        if isinstance(module, FourBitLinear):
            matrix = dequantised(module.weight, module.scales, (module.out_features, module.in_features), torch.float32)
            module.__class__ = nn.Linear  # type: ignore[assignment]
            module.weight = nn.Parameter(matrix, requires_grad=False)
            del module.scales
    model.float()


def layers_to_quantise(model: PreTrainedModel) -> list[nn.Linear]:
    """Return the layers that `quantise` turns into quantised ones."""
    in_single = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    head = model.get_output_embeddings() if model.can_generate() else None
    return [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and module is not head
        and module.weight.numel() % BLOCK == 0
        and not set(name.split(".")).intersection(in_single)
    ]


@contextmanager
def plain_gradients(model: nn.Module) -> Iterator[None]:
    """Let PyTorch differentiate quantised layers for a while."""
    changed = [module for module in model.modules() if isinstance(module, FourBitLinear)]
    for module in changed:
        module.plain = True
    try:
        yield
    finally:
        for module in changed:
            module.plain = False
