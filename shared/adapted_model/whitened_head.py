"""A linear head on features that are whitened by what a study's first round measured of them."""

import numpy as np
import torch
from torch import Tensor, nn

from shared.adapted_model.whitening import whitener


class WhitenedHead(nn.Module):
    """A linear head on features (records, width) that are whitened by what was measured of them.

    Args:
        linear: the head; all zeros at the start, as the moments are.
    """

    whitener: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        width = linear.in_features
        self.linear, self.moments = linear, nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.moments.weight)
        self.register_buffer("whitener", torch.eye(width), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """The head's outputs (records, outputs)."""
        outputs: Tensor = self.linear(features @ self.whitener.to(features.dtype))
        return outputs

    def measured(self, features: Tensor) -> Tensor:
        """Losses (records,) whose gradients for the moments are minus the features' second moments."""
        fixed = features.detach()
        losses: Tensor = -(fixed * self.moments(fixed)).sum(-1)
        return losses

    def take_over(self) -> None:
        """Whiten by the moments as they are now."""
        matrix = whitener(self.moments.weight.detach().cpu().numpy().astype(np.float64))
        self.whitener.copy_(torch.from_numpy(matrix))

    def imagine(self) -> None:
        """Add moments that differ from direction to direction, and whiten by them."""
        with torch.no_grad():
            self.moments.weight.add_(torch.diag(torch.arange(1.0, 1.0 + len(self.whitener)).to(self.whitener)))
        self.take_over()

    def plain(self) -> nn.Linear:
        """One linear layer with the same outputs."""
        folded = nn.Linear(self.linear.in_features, self.linear.out_features)
        with torch.no_grad():
            folded.weight.copy_((self.linear.weight.double() @ self.whitener.double()).float())
            folded.bias.copy_(self.linear.bias)
        return folded
