"""A node's settings, datasets and folders: opened once for each question, then passed on.

An operator's change of node.toml therefore takes effect with the next question.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from client.settings import Folders, NodeSettings, folders, load_node
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.registration import Registry
from client.vault.ledger.rows import Limit
from client.vault.ledger.state import LedgerState
from client.vault.records.approved_runs import ApprovedRuns
from client.vault.records.dataset import Dataset, declared_datasets
from client.vault.review.offers import Offers
from client.vault.secure_sum.sum_files import SumFiles
from shared.errors import SettingsError
from shared.files import private_folder
from shared.study.declaration import Study

if TYPE_CHECKING:
    from shared.base_models.locate import BaseModelFiles

LEDGER_PATIENCE_S = 60.0


@dataclass(frozen=True)
class NodeFiles:
    """One node, as its settings say now."""

    config: Path
    """Its node.toml."""
    settings: NodeSettings
    folders: Folders
    datasets: Mapping[str, Dataset]
    """By name."""
    approved: ApprovedRuns
    """Snapshots of what was approved."""
    open_ledger: Callable[[], Ledger]
    """Opens the ledger, verified; to be closed, since one process at a time may hold it."""

    @property
    def sums(self) -> SumFiles:
        """Keys, rosters and shares of this node's secure sums."""
        return SumFiles(self.folders.secure_sum)

    @property
    def offers(self) -> Offers:
        """Studies that the server showed."""
        return Offers(self.folders.offers)

    def cache_folder(self) -> Path:
        """Return the folder of cached activations, which are private data; it is made if it is not there."""
        private_folder(self.folders.cache)
        return self.folders.cache

    def personal_folder(self, run: str) -> Path:
        """Return where a run's personal adapter lies, if one was made; its name is no path."""
        return self.folders.personal / hashlib.sha256(run.encode()).hexdigest()[:32]

    def forget_activations(self) -> None:
        """Delete all cached activations; what the probe found out on synthetic records stays."""
        folder = self.folders.cache
        if not folder.exists():
            return
        for path in folder.iterdir():
            if path.is_file():
                path.unlink(missing_ok=True)
        with suppress(OSError):  # verdicts are in it
            folder.rmdir()

    def dataset(self, name: str) -> Dataset:
        """Return one dataset.

        Raises:
            SettingsError: node.toml has none of that name.
        """
        if name not in self.datasets:
            names = ", ".join(self.datasets) or "none"
            raise SettingsError(f"Expected a dataset of node.toml ({names}), got {name!r}.")
        return self.datasets[name]

    def ledger_state(self) -> LedgerState:
        """Return what the ledger adds up to now.

        Raises:
            LedgerError: another process holds it for long, or it cannot be trusted.
        """
        with self.open_ledger() as ledger:
            return ledger.state

    def registry(self, state: LedgerState) -> Registry:
        """Open the record index as the ledger knows it.

        Raises:
            LedgerError: index or key is not what the ledger knows.
        """
        return Registry(*self.folders.records, state)

    def base_files(self, study: Study) -> "BaseModelFiles":
        """Find the study's base model among this node's own.

        Raises:
            SettingsError: the study does not pin one, or it is not here.
        """
        if study.model.fingerprint is None:
            raise SettingsError("Expected a study that pins model.fingerprint, got one that does not.")
        from shared.base_models.locate import find_by_fingerprint

        return find_by_fingerprint(study.model.fingerprint, self.folders.models, study.model.fingerprint_version)


def open_node(config: Path) -> NodeFiles:
    """Read a node's settings.

    Raises:
        SettingsError: node.toml is not there or not valid.
    """
    settings = load_node(config)
    places, base = folders(config, settings), config.resolve().parent
    limits = {
        name: Limit(policy.epsilon, policy.delta, policy.limit_if_all_collude)
        for name, policy in settings.datasets.items()
    }
    return NodeFiles(
        config=config,
        settings=settings,
        folders=places,
        datasets=declared_datasets(settings.datasets, limits, base),
        approved=ApprovedRuns(places.approved),
        open_ledger=partial(Ledger, places.ledger, second_copy=places.second_copy, patience_s=LEDGER_PATIENCE_S),
    )
