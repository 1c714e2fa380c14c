"""Entering a dataset's records, before or with a study: who shares a budget is settled then."""

from itertools import chain
from typing import TYPE_CHECKING

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.registration import Registration, Registry
from client.vault.ledger.rows import IDENTITY_VERSION
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.records.source import (
    contents_of,
    earlier_row_texts,
    read_earlier_source,
    read_source,
    row_texts,
)
from client.vault.review.node_files import NodeFiles
from shared.errors import PolicyRefusal

if TYPE_CHECKING:
    import pandas as pd


def registration_of(registry: Registry, dataset: Dataset, table: "pd.DataFrame") -> Registration:
    """Return the dataset's terms with the identities of the records in a table."""
    contents = contents_of(dataset, table)
    rows = row_texts(dataset, contents, table)
    identities = registry.identities([*chain.from_iterable(rows), *contents.of_one_record()])
    earlier = registry.identities(_earlier_texts(dataset, table)) if registry.earlier else ()
    if registry.identity_version(dataset.name) < IDENTITY_VERSION:
        identities, earlier = identities + earlier, ()
    return Registration(dataset.name, dataset.limits[dataset.name], dataset.terms, identities, earlier)


def registered_rows(registry: Registry, dataset: Dataset, table: "pd.DataFrame") -> list[bool]:
    """Return for each row of a table, by itself, if its record was registered."""
    known, rows = registry.known(dataset.name), row_texts(dataset, contents_of(dataset, table), table)
    registered = [_all_known(registry, known, texts) for texts in rows]
    if registry.identity_version(dataset.name) < IDENTITY_VERSION:
        earlier = earlier_row_texts(dataset, read_earlier_source(dataset))
        if len(earlier) == len(rows):
            registered = [
                now or _all_known(registry, known, texts) for now, texts in zip(registered, earlier, strict=True)
            ]
    return registered


def read_registration(node: NodeFiles, dataset: Dataset) -> Registration:
    """Read what there is to register: node.toml's terms, and the records as they are now.

    Raises:
        DataError: the source cannot be read.
        LedgerError: the ledger or its record index cannot be trusted.
    """
    registry = node.registry(node.ledger_state())
    return registration_of(registry, dataset, read_source(dataset))


def register(node: NodeFiles, ledger: Ledger, dataset: Dataset, registration: Registration) -> None:
    """Enter a dataset's records before any study asks for them, or those that came to it since: one row.

    Raises:
        BudgetError: with what they share, more would be spent or earmarked than the limit allows.
        PolicyRefusal: node.toml does not say what the dataset was registered with.
    """

    def check(state: LedgerState) -> None:
        state.budget(dataset.name).check_fits(asked_for="records of an account")

    refuse_changes(dataset, ledger.state)
    node.registry(ledger.state).enter(ledger, registration, check)


def refuse_changes(dataset: Dataset, state: LedgerState) -> None:
    """Compare node.toml with what the dataset was registered with.

    Raises:
        PolicyRefusal: they differ.
    """
    refuse_objections(dataset, dataset.changes(state))


def refuse_objections(dataset: Dataset, objections: list[str]) -> None:
    """Refuse what a policy objects to.

    Raises:
        PolicyRefusal: there is an objection.
    """
    if objections:
        raise PolicyRefusal(
            f"Expected a study within the policy of {dataset.name!r}, got: {'; '.join(objections)}.",
            hint="The stricter of study and policy wins. Change node.toml, or say no.",
        )


def _all_known(registry: Registry, known: set[bytes], texts: list[str]) -> bool:
    return known.issuperset(filter(None, registry.identities(texts)))


def _earlier_texts(dataset: Dataset, table: "pd.DataFrame") -> list[str]:
    rows = [*earlier_row_texts(dataset, read_earlier_source(dataset)), *earlier_row_texts(dataset, table)]
    return list(dict.fromkeys(chain.from_iterable(rows)))
