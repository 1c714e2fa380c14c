"""A site that writes down how long its updates are. In a simulation only."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from client.answer import Trainer
from shared.files import write_atomically
from shared.protocol.messages import Status, TrainReply, TrainTask


class MeasuredSite:
    """Answers as another site does, and keeps the l2 length of each update.

    Args:
        site: the other one.
        file: for the lengths, by round.
    """

    def __init__(self, site: Trainer, file: Path) -> None:
        self._site, self._file = site, file

    def train(self, task: TrainTask) -> TrainReply:
        """Train; the length is durable before the update leaves."""
        reply = self._site.train(task)
        if reply.status is Status.TRAINED:
            norms = read_norms(self._file) | {task.round: float(np.linalg.norm(reply.update.astype(np.float64)))}
            self._file.parent.mkdir(exist_ok=True)
            write_atomically(self._file, json.dumps(norms).encode())
        return reply


def norms_file(arm: Path, site_index: int) -> Path:
    """Return where a site's lengths are kept, in the folder of an arm."""
    return arm / "norms" / f"{site_index}.json"


def norms_by_round(arm: Path, sites: Mapping[str, int]) -> dict[int, dict[str, float]]:
    """Return the lengths that an arm's folder holds, by round and site, given the sites' numbers by name."""
    norms = dict[int, dict[str, float]]()
    for name, index in sites.items():
        for number, norm in read_norms(norms_file(arm, index)).items():
            norms.setdefault(number, {})[name] = norm
    return norms


def read_norms(file: Path) -> dict[int, float]:
    """Return the lengths that a file holds, by round; of no file, none."""
    return {int(number): norm for number, norm in json.loads(file.read_text()).items()} if file.exists() else {}
