"""A node that has been let in and misbehaves: it speaks the protocol and sends what no vault would."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.link import Link
from client.membership import membership
from client.settings import folders, load_node
from shared.protocol import OfferReply, Status, StudyOffer, TrainReply, TrainTask, Vector

HUGE_FLOATS = 75_000_000
KINDS = ("nan", "shape", "norm", "stale", "replay", "huge")


class Rogue:
    """Says yes to every study.

    Args:
        kind: what is wrong with its updates.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._first: TrainReply | None = None

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Yes."""
        return OfferReply(offer.study_run, Status.APPROVED)

    def train(self, task: TrainTask) -> TrainReply:
        """Something that must be kept out."""
        reply = TrainReply(
            task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, self._update(task)
        )
        if self._kind == "stale":
            return replace(reply, round=task.round - 1, base_sha256="0" * 64)
        if self._kind == "replay":
            self._first = self._first or reply
            return self._first
        return reply

    def _update(self, task: TrainTask) -> Vector:
        honest = np.full(len(task.adapter), 1e-3, np.float32)
        if self._kind == "nan":
            honest[0] = np.nan
        if self._kind == "norm":
            return honest * np.float32(1e6)
        if self._kind == "shape":
            return honest[:-1]
        # noise: Flower sends equal chunks once
        return np.random.default_rng().random(HUGE_FLOATS, np.float32) if self._kind == "huge" else honest


def main(config: Path, kind: str) -> None:
    """Run until killed."""
    settings = load_node(config)
    member, base = membership(folders(config, settings).link), config.resolve().parent
    Link(
        lambda: member.connect(settings.server, base),
        Rogue(kind),
        folders(config, settings).link,
        server=member.server,
        node_id=member.node_id,
        stop=threading.Event(),
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
