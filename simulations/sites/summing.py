"""Sites of a secure sum, simulated without its masks: they cancel exactly, so the sum is the same whole numbers."""

from dataclasses import replace
from typing import cast

from client.vault.training.round_trainer import RoundTrainer
from shared.privacy.releases import SharedGaussian, SubsampledGaussian
from shared.protocol.messages import Status, TrainReply, TrainTask, Vector
from shared.protocol.update_encoding import Encoding
from shared.secure_sum.thresholds import Thresholds


class SummingSite(RoundTrainer):
    """A private site whose summands are open: NOT private where the noise is shared, and for simulations alone."""

    def share_noise_with(self, sizes: Thresholds) -> None:
        """Take the numbers of a roster, as a node takes them from its ledger."""
        if isinstance(self.release, SharedGaussian):
            self.release = self.release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)

    def attempt(self, task: TrainTask, release: SubsampledGaussian) -> TrainReply:
        """Answer with the summand itself."""
        summand = self.summand(task, release)
        if summand is None:
            return self.reply(task, Status.FAILED)
        trained = self.reply(task, Status.TRAINED)
        return replace(trained, update=cast(Vector, summand), encoding=Encoding("int64"))
