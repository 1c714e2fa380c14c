"""From an operator's table to what one study run trains on: roles, tokens, targets; and facts for the operator."""

from dataclasses import dataclass

import pandas as pd

from client.vault.datasets import TokenizedDataset, from_records, group
from client.vault.policy import DatasetPolicy
from client.vault.roles import Role, roles, unit_roles
from shared.foundation import Foundation, load_tokenizer
from shared.study import Study
from shared.tasks.kinds import task_kind


@dataclass(frozen=True)
class Facts:
    """Depends on the records: shown to the operator, never sent."""

    rows: int
    train: int
    units: int
    """What the training records belong to; as many as records, unless the unit is a column."""
    holdout: int
    dropped: int
    """Rows of a unit beyond `records_per_unit`, and rows whose unit has no value."""
    unusable: int
    """Training records with an unknown label or no text; they contribute nothing."""
    labels: dict[str, int]
    """Training records by label of the study."""


@dataclass(frozen=True)
class Snapshot:
    """A table as one study sees it."""

    train: TokenizedDataset
    holdout: TokenizedDataset
    facts: Facts


def take_snapshot(
    table: pd.DataFrame, policy: DatasetPolicy, study: Study, foundation: Foundation, *, key: bytes
) -> Snapshot:
    """Give every row its role by itself, and tokenise.

    Args:
        table: with the policy's columns, as text.
        policy: of the dataset.
        study: its labels and lengths.
        foundation: its tokenizer.
        key: of the node; decides roles.
    """
    texts, labels = table[policy.text_column].tolist(), table[policy.label_column].tolist()
    if policy.unit_column is None:
        every = roles(texts, labels, key=key, holdout=policy.holdout)
    else:
        every = unit_roles(table[policy.unit_column].tolist(), key=key, holdout=policy.holdout)
    decided = pd.Series(every, index=table.index)
    kind, tokenizer = task_kind(study.task), load_tokenizer(foundation)

    def of(part: pd.DataFrame) -> TokenizedDataset:
        texts, labels = part[policy.text_column].tolist(), part[policy.label_column].tolist()
        return from_records(kind.tokens(texts, tokenizer), kind.targets(texts, labels))

    train, holdout = of(table[decided == Role.TRAIN]), of(table[decided == Role.HOLDOUT])
    if policy.unit_column is not None:
        values = table[decided == Role.TRAIN][policy.unit_column].tolist()
        train = group(train, values, records_per_unit=study.privacy.records_per_unit, key=key).dataset
    facts = Facts(
        rows=len(table),
        train=len(train),
        units=train.unit_count,
        holdout=len(holdout),
        dropped=len(table) - len(train) - len(holdout),
        unusable=train.unusable,
        labels={label: int((train.targets == number).sum()) for number, label in enumerate(study.task.labels)},
    )
    return Snapshot(train, holdout, facts)
