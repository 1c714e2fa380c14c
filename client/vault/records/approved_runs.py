"""Approved runs, kept as they were then: the study, and a snapshot of the records.

Private data at rest: the folder is this user's alone.
"""

import hashlib
import json
import shutil
from pathlib import Path

from shared.errors import DataError
from shared.files import complete_folder, private_file
from shared.records.ragged import Records, load
from shared.study.declaration import Study, recorded


class ApprovedRuns:
    """Snapshots by study run.

    Guarantee: a run trains on the records as they were when it was approved, whatever happens to the file later.
    Guarantee: a run that the policy approved trains on the records as its first round found them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(
        self,
        run: str,
        study: Study,
        *,
        declared_size: int,
        train: Records | None = None,
        holdout: Records | None = None,
    ) -> None:
        """Write a snapshot as a whole or not at all; one that is there is replaced. Records may come later: `take`."""
        with complete_folder(self._of(run), private=True) as folder:
            (folder / "study.json").write_text(study.canonical_json())
            (folder / "declared_size.json").write_text(json.dumps(declared_size))
            if train is not None and holdout is not None:
                train.save(folder / "train.npz")
                holdout.save(folder / "holdout.npz")

    def holds(self, run: str) -> bool:
        """Return true if anything is kept of this run."""
        return self._of(run).exists()

    def taken(self, run: str) -> bool:
        """Return true if the records are kept."""
        return (self._of(run) / "train.npz").exists()

    def take(self, run: str, *, train: Records, holdout: Records) -> None:
        """Keep the records of a run that was approved without them."""
        # the training records last: they say that both are there
        for name, part in (("holdout.npz", holdout), ("train.npz", train)):
            with private_file(self._of(run) / name) as unfinished:
                part.save(unfinished)

    def study(self, run: str) -> Study:
        """The study as approved; its performance settings are this machine's own.

        Raises:
            DataError: nothing is kept for this run.
        """
        path = self._of(run) / "study.json"
        if not path.exists():
            raise DataError(f"Expected the records that {run!r} was approved with, got none.")
        return recorded(json.loads(path.read_text()), where=str(path))

    def declared_size(self, run: str) -> int:
        """Return the dataset's public size, as declared at the time."""
        return int(json.loads((self._of(run) / "declared_size.json").read_text()))

    def train(self, run: str) -> Records:
        """Records to train on."""
        return load(self._of(run) / "train.npz")

    def holdout(self, run: str) -> Records:
        """Records never trained on."""
        return load(self._of(run) / "holdout.npz")

    def forget(self, run: str) -> None:
        """Delete a snapshot; the ledger remembers what it cost."""
        shutil.rmtree(self._of(run), ignore_errors=True)

    def _of(self, run: str) -> Path:
        # a run's name comes from the server and may not become a path
        return self._folder / hashlib.sha256(run.encode()).hexdigest()[:32]
