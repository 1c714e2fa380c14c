"""Registering a dataset's records in the index and in the ledger together: who shares a budget with whom.

Registering enters exactly one row, with whatever ties were found inside it: the server is told the ledger's height, so
the number of rows must not depend on the records.

| a crash | what is left |
|---|---|
| before the index is durable | nothing |
| between index and ledger | an index that is ahead: nothing is spent on it, and later ties are the more |
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.record_index import RecordIndex, Sharing, node_key
from client.vault.ledger.rows import DatasetTerms, Limit, records_row, registration_row
from client.vault.ledger.state import LedgerState


@dataclass(frozen=True)
class Registration:
    """A dataset as its operator declares it, and the records that it holds now."""

    dataset: str
    limit: Limit
    terms: DatasetTerms
    identities: tuple[bytes, ...]
    """From `Registry.identities`."""
    earlier: tuple[bytes, ...] = ()
    """Identities of the same records by version 1, for a dataset of a later one: they are looked for in datasets of
    version 1, and not entered."""


class Registry:
    """Index and ledger of one node, as they stand.

    Guarantee: registering a dataset enters one row, whatever its records share with others.
    Guarantee: a dataset that was registered under an earlier identity is tied to whatever shares a record with it under
        either.

    Args:
        index: path of the record index.
        key: path of its key.
        state: of the ledger.

    Raises:
        LedgerError: index or key is not what the ledger knows.
    """

    def __init__(self, index: Path, key: Path, state: LedgerState) -> None:
        self.key = node_key(key, known=state.key_sha256)
        self._index, self._state = RecordIndex(index, self.key, state.index_digest), state

    def identities(self, texts: Iterable[str]) -> tuple[bytes, ...]:
        """Return keyed hashes, one for each text; empty for an empty one."""
        return tuple(self._index.hashed(texts))

    @property
    def earlier(self) -> bool:
        """True if a dataset of version 1 is registered."""
        return bool(self._state.earlier_datasets)

    def identity_version(self, dataset: str) -> int:
        """Return the version of the record identity that a dataset has, or is about to be registered with."""
        return self._state.identity_version(dataset)

    def known(self, dataset: str) -> set[bytes]:
        """Return what was ever registered for a dataset."""
        return self._index.known(dataset)

    def look(self, registration: Registration) -> LedgerState:
        """Return the ledger's state as it would be; nothing is entered."""
        sharing = self._index.look(registration.dataset, registration.identities, sought=registration.earlier)
        return self._with(_row(self._state, registration, sharing))

    def enter(self, ledger: Ledger, registration: Registration, check: Callable[[LedgerState], None]) -> None:
        """Enter the records, unless `check` refuses the state that they would lead to.

        Args:
            ledger: whose state this is; held.
            registration: what to enter.
            check: raises to leave everything as it is.
        """
        dataset, identities, earlier = registration.dataset, registration.identities, registration.earlier
        with self._index.entering(dataset, identities, sought=earlier) as sharing:
            row = _row(self._state, registration, sharing)
            check(self._with(row))
        # the index first: a ledger that is ahead of its index would never open a dataset again
        ledger.enter(row)

    def _with(self, row: dict[str, Any]) -> LedgerState:
        state = copy.deepcopy(self._state)
        state.apply(row)
        return state


def _row(state: LedgerState, registration: Registration, sharing: Sharing) -> dict[str, Any]:
    dataset = registration.dataset
    others = sharing.others | sharing.sought & state.earlier_datasets - {dataset}
    new = others & set(state.limits) - state.ties.get(dataset, set())
    if dataset in state.limits:
        unsaid = dataset in state.terms and state.terms[dataset].holdout is None
        holdout = registration.terms.holdout if unsaid else None
        return records_row(dataset, new, sharing.index_digest, holdout=holdout)
    row = records_row(dataset, new, sharing.index_digest)
    return row | registration_row(dataset, registration.limit, registration.terms)
