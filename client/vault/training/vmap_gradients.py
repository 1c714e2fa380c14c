"""Per-example gradients of any trainable tensor: one record's loss, vectorised over records of one shape.

The fast path knows linear layers only. This one differentiates the whole model once per record, by `torch.func`, and so
serves adapters whose tensors are no layers (DoRA's magnitudes, IA3's factors). Records that are vectorised together
have the same length, so none is padded and no mask is needed: masks are what most models cannot be vectorised over.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.records.batches import Batch

if TYPE_CHECKING:
    from shared.adapted_model.model import AdaptedModel


class _Loss(nn.Module):
    """One record's loss as a module, so that its parameters can be replaced."""

    def __init__(self, model: "AdaptedModel") -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """A batch of one."""
        return self.model.losses(batch).sum()


def vectorised_gradients(model: "AdaptedModel", batch: Batch) -> None:
    """Leave the gradients of a batch, one per record, in `grad_sample` of every trainable parameter.

    Args:
        model: its trainable parameters are differentiated, everything else is constant.
        batch: records of one shape, without padding.

    Raises:
        RuntimeError: the model cannot be vectorised, which the probe finds out; or a record makes it raise.
    """
    trained = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    loss = _Loss(model)

    def of_one(parameters: dict[str, Tensor], record: Batch) -> Tensor:
        single = {name: tensor.unsqueeze(0) for name, tensor in record.items()}
        value: Tensor = functional_call(loss, parameters, (single | {"unpadded": torch.ones(())},))
        return value

    values = {name: p.detach() for name, p in trained.items()}
    with sdpa_kernel(SDPBackend.MATH):  # fused attention kernels would be run record by record
        gradients = vmap(grad(of_one), in_dims=(None, 0))(values, batch)
    for name, parameter in trained.items():
        parameter.grad_sample = gradients[name].detach()  # type: ignore[attr-defined]
