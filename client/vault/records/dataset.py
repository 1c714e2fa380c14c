"""One dataset of node.toml as a value: made once for each question, then passed on."""

from dataclasses import dataclass
from pathlib import Path

from client.policy import DatasetPolicy
from client.vault.ledger.budget import Budget
from client.vault.ledger.rows import IDENTITY_VERSION, DatasetTerms, Limit
from client.vault.ledger.state import LedgerState


@dataclass(frozen=True)
class Dataset:
    """A dataset with what its operator says of it today."""

    name: str
    policy: DatasetPolicy
    source: Path
    terms: DatasetTerms
    """What its spending is measured in."""
    limit: Limit
    """The most it may spend, as node.toml says; the ledger may know a stricter one."""

    def budget(self, state: LedgerState) -> Budget:
        """Return what its account may spend, under the stricter of ledger and node.toml."""
        return state.budget(self.name, declared=self.limit)

    def changes(self, state: LedgerState) -> list[str]:
        """Return what node.toml says differently from when the dataset was registered; public."""
        then, now = state.terms.get(self.name), self.terms
        changes = []
        if then is not None and (now.unit, now.declared_size) != (then.unit, then.declared_size):
            registered = f"one {then.unit} as its unit and declared_size = {then.declared_size}"
            changes.append(
                f"{self.name} was registered with {registered}, node.toml says one {now.unit} and {now.declared_size}"
            )
        if then is not None and then.holdout not in (None, now.holdout):
            changes.append(
                f"{self.name} was registered with holdout = {then.holdout:g}, node.toml says {now.holdout:g}"
            )
        if then is not None and then.split_by != now.split_by:
            changes.append(
                f"{self.name} was registered with split_by = {then.split_by or 'none'}, node.toml says "
                f"{now.split_by or 'none'}"
            )
        return changes


def declared_dataset(name: str, policy: DatasetPolicy, limit: Limit, base: Path) -> Dataset:
    """Return a dataset as node.toml declares it, with the most it may spend; `base` is the folder of node.toml."""
    terms = DatasetTerms(policy.unit, policy.declared_size, policy.holdout, IDENTITY_VERSION, policy.split_by)
    return Dataset(name, policy, base / policy.source, terms, limit)
