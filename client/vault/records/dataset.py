"""One dataset of node.toml as a value: made once for each question, then passed on."""

from dataclasses import dataclass
from pathlib import Path

from client.policy import DatasetPolicy
from client.vault.ledger.budget import Budget
from client.vault.ledger.rows import DatasetTerms, Limit
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
        if then is None or now == then:
            return []
        registered = (
            f"{self.name} was registered with one {then.unit} as its unit and declared_size = {then.declared_size}"
        )
        return [f"{registered}, node.toml says one {now.unit} and {now.declared_size}"]


def declared_dataset(name: str, policy: DatasetPolicy, base: Path) -> Dataset:
    """Return a dataset as node.toml declares it; `base` is the folder of node.toml."""
    terms, limit = DatasetTerms(policy.unit, policy.declared_size), Limit(policy.epsilon, policy.delta)
    return Dataset(name, policy, base / policy.source, terms, limit)
