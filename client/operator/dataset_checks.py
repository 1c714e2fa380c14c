"""Checks of one dataset beside its records: its base models, its budget."""

import math

from client.operator.finding import Seen
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.review.node_files import NodeFiles
from shared.base_models.locate import find_by_fingerprint
from shared.errors import BudgetError, PolicyRefusal

LARGEST_EPSILON, LEAST_LEFT = 10.0, 0.01
"""A larger limit is a warning; less than this fraction of a budget left is a failure."""


def limit(dataset: Dataset) -> Seen:
    """Say what the budget's limit means, where it means little."""
    epsilon, unit = dataset.policy.epsilon, dataset.policy.unit
    saw = f"epsilon {epsilon:g} at most, over all studies"
    if epsilon <= LARGEST_EPSILON:
        return Seen(saw)
    return Seen(
        saw,
        f"whatever is seen may be e^{epsilon:g}, about {math.exp(epsilon):,.0f}, times as likely because one {unit} "
        "took part: that protects nobody",
        "3 is usual; one above 10 needs a reason that you would tell the people in the records.",
    )


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
