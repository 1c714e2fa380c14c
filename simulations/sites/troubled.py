"""A site whose answers get lost, or whose updates are scaled on purpose: to see what the server makes of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from client.answer import Trainer
from shared.protocol.messages import Status, TrainReply, TrainTask, Vector, without_update


class TroubledSite:
    """Answers as another site does, but for what befalls it.

    Args:
        site: the other one.
        loses: whether its answer to a round is lost.
        factor: of its updates; one that is not 1 POISONS the study.
    """

    def __init__(self, site: Trainer, loses: Callable[[int], bool], *, factor: float = 1.0) -> None:
        self._site, self._loses, self._factor = site, loses, factor

    def train(self, task: TrainTask) -> TrainReply:
        """Train, unless the answer would be lost; the update is scaled here."""
        if self._loses(task.round):
            return without_update(task, Status.LOST)
        reply = self._site.train(task)
        if self._factor == 1.0 or reply.status is not Status.TRAINED:
            return reply
        scaled: Vector = (self._factor * reply.update).astype(np.float32)
        return replace(reply, update=scaled)
