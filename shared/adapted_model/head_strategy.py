"""Strategies of training a task's head: as it is, or on features that a first round measures.

A strategy decides what a round that measures moves and descends on, what is done with a received adapter, and which
head others load. Whoever trains, probes or exports a model asks its strategy and knows none by name.
"""

from torch import Tensor, nn

from shared.adapted_model.whitened_head import WhitenedHead
from shared.errors import SettingsError
from shared.study.declaration import Study

NOTHING_TO_MEASURE = "Expected a study with training.whitening, got a round that measures without it."


class HeadStrategy:
    """Train a head as it is: no round measures, and others load the very same head.

    Args:
        module: the task's head.
    """

    measures = False
    """Whether a study's first rounds measure something for this head."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def measured(self) -> Tensor | None:
        """The tensor that rounds which measure move, and no others."""
        return None

    def measuring_losses(self, _features: Tensor) -> Tensor:
        """Losses (records,) of a round that measures, from pooled features (records, width).

        Raises:
            SettingsError: the study measures nothing.
        """
        raise SettingsError(NOTHING_TO_MEASURE)

    def take_over(self) -> None:
        """Use what an adapter that was just loaded says was measured."""

    def imagine(self) -> None:
        """Put something in the place of a measurement, for a probe: noise alone would say nothing."""

    def plain(self) -> nn.Module:
        """The head as others load it, without anything of ours."""
        return self.module


class WhitenedHeadStrategy(HeadStrategy):
    """Train a linear head on features that are whitened by the second moments which the first round measures."""

    measures = True

    def __init__(self, linear: nn.Linear) -> None:
        self.head = WhitenedHead(linear)
        super().__init__(self.head)

    @property
    def measured(self) -> Tensor:
        """The features' second moments (width, width)."""
        return self.head.moments.weight

    def measuring_losses(self, features: Tensor) -> Tensor:
        """Losses (records,) whose gradients for the moments are minus the features' second moments."""
        return self.head.measured(features)

    def take_over(self) -> None:
        """Whiten by the moments as they are now."""
        self.head.take_over()

    def imagine(self) -> None:
        """Add moments that differ from direction to direction, and whiten by them."""
        self.head.imagine()

    def plain(self) -> nn.Linear:
        """One linear layer with the same outputs."""
        return self.head.plain()


def strategy_for(study: Study, head: nn.Module) -> HeadStrategy:
    """Choose how a study trains its task's head."""
    if study.training.whitening and isinstance(head, nn.Linear):
        return WhitenedHeadStrategy(head)
    return HeadStrategy(head)
