"""Checks of one dataset: its source, its base models, its budget."""

from typing import TYPE_CHECKING

from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.review.node_files import NodeFiles
from shared.base_models.locate import find_by_fingerprint
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.noise_schedule import declared_size
from shared.records.tables import columns_of, content_columns, read_table

if TYPE_CHECKING:
    import pandas as pd

LEAST_LEFT = 0.01
"""Fraction of a budget; less of it left is a finding."""


def data(dataset: Dataset) -> str:
    """Count the rows of the source, by label if it has labels.

    Raises:
        DataError: it cannot be read, or a column is missing.
    """
    policy, present = dataset.policy, columns_of(dataset.source)
    unit = [policy.unit_column] if policy.unit_column else []
    label = policy.columns.get("label", "label")
    labelled = label in present or "label" in policy.columns
    wanted = [*content_columns(present, policy.columns).values(), *unit, *([label] if labelled else [])]
    table = read_table(dataset.source, wanted)
    usual = declared_size(len(table))
    note = "" if usual == policy.declared_size else f"; rounded to two digits that is {usual}"
    labels = f" ({_counts(table[label])})" if labelled else ""
    return f"{len(table)} rows{labels}, declared {policy.declared_size}{note}. For your eyes only"


def models(node: NodeFiles, dataset: Dataset) -> str:
    """Find every base model that the policy lists.

    Raises:
        SettingsError: one is not here.
    """
    base_models = [find_by_fingerprint(model, node.folders.models) for model in dataset.policy.models]
    return ", ".join(base_files.directory.name for base_files in base_models)


def budget(dataset: Dataset, state: LedgerState) -> str:
    """Say how much of the budget is used.

    Raises:
        BudgetError: hardly anything is left.
        PolicyRefusal: the dataset was withdrawn.
    """
    if state.account(dataset.name) & state.withdrawn:
        raise PolicyRefusal("Its records were withdrawn.", hint="Take it out of node.toml.")
    account = dataset.budget(state)
    used, limit = account.epsilon(), account.limit.epsilon
    saw = f"epsilon {used:.3f} of {limit:g} is spent or earmarked"
    if limit - used < LEAST_LEFT * limit:
        raise BudgetError(
            f"{saw}: no study fits any more.",
            hint="Reject runs that are not needed: what they have not used is given back. What is spent stays spent.",
        )
    return saw


def _counts(cells: "pd.Series[str]") -> str:
    return ", ".join(f"{label} {count}" for label, count in cells.str.strip().value_counts().head(8).items())
