"""A tombstone for a dataset: no further rounds, no copies of its records left here, and a list of what came of it."""

import shutil
from dataclasses import dataclass

from client.vault.ledger.registration import Registry
from client.vault.review.review import StudyReview
from shared.errors import DataError, SettingsError


@dataclass(frozen=True)
class Descendant:
    """A run that trained on the records; its adapter holds something of them, for ever."""

    run: str
    study: str
    """Name of the study, as far as it is still known here."""
    model: str
    """Base model of its adapter."""
    dataset: str
    rounds_paid: int


def withdraw(review: StudyReview, dataset: str) -> list[Descendant]:
    """End all training on a dataset's records, also under other names; returns what descends from them.

    Guarantee: after a withdrawal no snapshot and no cached activation of its records is left.

    Raises:
        SettingsError: neither the ledger nor node.toml knows it.
        DataError: it was never registered, and its records cannot be read to find out what shares them.
        PolicyRefusal: it was withdrawn before.
    """
    known = dataset in review.state().limits
    asked = None if known else review.read(dataset)
    with review.ledger() as ledger:
        if asked is not None:
            # only what is registered can be tied to what shares its records, and ended with it
            Registry(*review.folders.records, ledger.state).enter(ledger, asked, lambda _state: None)
        ledger.withdraw(dataset)
        account = ledger.state.account(dataset)
        runs = {name: run for name, run in ledger.state.runs.items() if run.dataset in account}
    found = [
        Descendant(name, *_study(review, name), run.dataset, len(run.attempts))
        for name, run in sorted(runs.items())
        if run.attempts
    ]
    for name in runs:
        review.approved.forget(name)
    # of every dataset: whose activations a file holds cannot be told any more, and they are computed again when needed
    shutil.rmtree(review.folders.cache, ignore_errors=True)
    return found


def _study(review: StudyReview, run: str) -> tuple[str, str]:
    try:
        study = review.approved.study(run)
    except DataError:
        try:
            study = review.offers.find(run).study
        except SettingsError:
            return "not known any more", "not known any more"
    return study.study.name, study.model.shown_source
