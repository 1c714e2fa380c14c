"""Per-example gradients of linear layers, written by the backward pass itself.

Opacus' optimizer needs nothing but `parameter.grad_sample`. Its hooks also let autograd compute the summed weight
gradient that nobody uses; this layer computes only the per-example one, which makes a private step cost what a plain
one does. Its exactness is not assumed: `exactness.probe` compares it with a loop over single records.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import ExactnessError


class BatchSize:
    """The number of records that the current forward pass holds; shared by all layers of one model."""

    records: int = 0


class _Linear(torch.autograd.Function):
    """y = x Wᵀ + b whose backward pass leaves one weight gradient per record on the parameters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, batch: BatchSize) -> Tensor:
        ctx.save_for_backward(x)
        # the parameters themselves: of what is saved, a layer that is computed again gives back copies
        ctx.weight, ctx.bias, ctx.records = weight, bias, batch.records
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = upstream
        (x,), weight, bias = ctx.saved_tensors, ctx.weight, ctx.bias
        # batch-major reshape: also right for models that flatten (records, tokens) into one dimension
        per_record = gradient.reshape(ctx.records, -1, gradient.shape[-1]).to(weight.dtype)
        if weight.requires_grad:
            inputs = x.reshape(ctx.records, -1, x.shape[-1]).to(weight.dtype)
            _accumulate(weight, torch.bmm(per_record.transpose(1, 2), inputs))
        if bias is not None and bias.requires_grad:
            _accumulate(bias, per_record.sum(1))
        below = (gradient @ weight.to(gradient.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None
        return below, None, None, None


class PerExampleLinear(nn.Linear):
    """A linear layer that, under autograd, fills `grad_sample` (records, *shape) of its trainable parameters."""

    batch: BatchSize

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.Linear gave it
        """Compute what `nn.Linear` does."""
        if not torch.is_grad_enabled():
            return super().forward(input)
        result: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.batch
        )
        return result


def make_per_example(model: nn.Module) -> BatchSize:
    """Turn every linear layer that is trained into a `PerExampleLinear`, in place; parameters and names stay.

    Guarantee: no parameter is trained whose per-example gradient is not computed.

    Raises:
        ExactnessError: something other than a plain linear layer holds trainable parameters.
    """
    known = (module.batch for module in model.modules() if isinstance(module, PerExampleLinear))
    batch = next(known, None) or BatchSize()
    for name, module in model.named_modules():
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        if type(module) not in (nn.Linear, PerExampleLinear):
            raise ExactnessError(
                f"Expected only linear layers to be trained, got {name or 'the model'} ({type(module).__name__}).",
                hint="Choose an adapter whose trainable tensors are linear layers, such as method='ffa-lora'.",
            )
        module.__class__ = PerExampleLinear
        module.batch = batch
    return batch


def only_linear(model: nn.Module) -> bool:
    """Return true if every trained tensor belongs to a linear layer, so that `make_per_example` serves the model."""
    return all(
        type(module) in (nn.Linear, PerExampleLinear)
        for module in model.modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    )


def check_gradients(parameters: Sequence[nn.Parameter], records: int) -> None:
    """Refuse to continue unless the last backward pass left one gradient per record on every parameter.

    Raises:
        ExactnessError: a parameter has no gradient, or not one per record.
    """
    for parameter in parameters:
        gradients = getattr(parameter, "grad_sample", None)
        if gradients is None or gradients.shape != (records, *parameter.shape):
            shape = None if gradients is None else tuple(gradients.shape)
            raise ExactnessError(f"Expected one gradient per record for {records} records, got {shape}.")


@contextmanager
def plain_linear_layers(model: nn.Module) -> Iterator[None]:
    """Give back PyTorch's own linear layers for a while: the oracle must not run the code that it checks."""
    changed: list[nn.Module] = [module for module in model.modules() if type(module) is PerExampleLinear]
    for module in changed:
        module.__class__ = nn.Linear
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = PerExampleLinear


def _accumulate(parameter: Any, gradient: Tensor) -> None:
    # a layer that is used twice in one pass (shared weights) contributes the sum of both uses
    earlier = getattr(parameter, "grad_sample", None)
    if earlier is not None and earlier.shape != gradient.shape:
        raise ExactnessError(f"Expected gradients of {len(gradient)} records, {len(earlier)} of others were left.")
    parameter.grad_sample = gradient if earlier is None else earlier + gradient
