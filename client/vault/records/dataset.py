"""One dataset of node.toml as a value: made once for each question, then passed on.

Datasets that share records are one account. What node.toml says of any of them to protect its records, holds for all:
the least that may be spent, the largest of `smallest_cohort` and `colluders`, the strictest word on evaluations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.policy import EVALUATIONS, DatasetPolicy
from client.vault.ledger.budget import Budget
from client.vault.ledger.rows import IDENTITY_VERSION, DatasetTerms, Limit, strictest
from client.vault.ledger.state import LedgerState


@dataclass(frozen=True)
class Dataset:
    """A dataset with what its operator says of it today."""

    name: str
    policy: DatasetPolicy
    source: Path
    terms: DatasetTerms
    """What its spending is measured in."""
    policies: Mapping[str, DatasetPolicy]
    """Of all datasets of node.toml, by name: some may share records with this one."""
    limits: Mapping[str, Limit]
    """The most that each of them may spend, as node.toml says; the ledger may know stricter ones."""

    def rules(self, state: LedgerState) -> DatasetPolicy:
        """Return its policy, with whatever protects records as strict as any dataset that shares some with it asks for.

        Guarantee: of datasets that share records the largest `smallest_cohort` and `colluders` of node.toml count, and
        one without `epsilon_if_all_collude` lets none of them share noise.
        """
        if not state.ties.get(self.name):
            return self.policy
        account = state.account(self.name)
        policies = [self.policy, *(policy for name, policy in self.policies.items() if name in account)]
        limit = strictest(self.limits[name] for name in account if name in self.limits).if_all_collude
        stricter = {
            "smallest_cohort": max(policy.smallest_cohort for policy in policies),
            "colluders": max(policy.colluders for policy in policies),
            "epsilon_if_all_collude": "no-limit" if limit == math.inf else limit,
            "evaluation": next(word for word in EVALUATIONS if word in [policy.evaluation for policy in policies]),
        }
        return self.policy.model_copy(update=stricter)

    def budget(self, state: LedgerState) -> Budget:
        """Return what its account may spend, under the stricter of ledger and node.toml."""
        return state.budget(self.name, declared=self.limits)

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


def declared_datasets(
    policies: Mapping[str, DatasetPolicy], limits: Mapping[str, Limit], base: Path
) -> dict[str, Dataset]:
    """Return the datasets as node.toml declares them, with the most they may spend; `base` is node.toml's folder."""
    return {
        name: Dataset(name, policy, base / policy.source, _terms(policy), policies, limits)
        for name, policy in policies.items()
    }


def _terms(policy: DatasetPolicy) -> DatasetTerms:
    return DatasetTerms(policy.unit, policy.declared_size, policy.holdout, IDENTITY_VERSION, policy.split_by)
