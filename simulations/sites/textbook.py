"""The recipe of tutorials, accounted correctly: Adam starts afresh in every round, on gradients cut at one length.

What a competent user would write after Opacus' and Flower's examples; a peer for benchmarks, not a choice for studies.
Its noise is set for the whole study, where the examples set it for a single round and so spend far more than they say.
"""

import torch

from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import PrivateTrainer
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.protocol.messages import TrainTask


class TextbookSite(RoundTrainer):
    """A private site that differs from a node only in its optimizer."""

    def admits(self, task: TrainTask) -> bool:
        """Accept any adapter: Adam's steps are no multiples of signal and noise, and only the simulation asks."""
        del task
        return True

    def _trainer_on(self, activations: FrozenActivations) -> PrivateTrainer:
        trainer = super()._trainer_on(activations)
        trainer.descent = torch.optim.Adam
        return trainer
