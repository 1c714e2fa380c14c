"""Withdrawing a dataset: no further rounds, no copies of its records left here, and a list of what came of it."""

from dataclasses import dataclass

from client.operator.forgetting import forget_ended
from client.vault.review.node_files import NodeFiles
from client.vault.review.registering import read_registration
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


def withdraw(node: NodeFiles, dataset: str) -> list[Descendant]:
    """End all training on a dataset's records, also under other names; returns what descends from them.

    Guarantee: after a withdrawal no snapshot and no cached activation of its records is left.

    Raises:
        RunError: it is withdrawn, and a vault that runs has not said in time that it forgot.
        SettingsError: neither the ledger nor node.toml knows it.
        DataError: it was never registered, and its records cannot be read to find out what shares them.
        PolicyRefusal: it was withdrawn before.
    """
    registered = dataset in node.ledger_state().limits
    registration = None if registered else read_registration(node, node.dataset(dataset))
    with node.open_ledger() as ledger:
        if registration is not None:
            # only what is registered can be tied to what shares its records, and ended with it
            node.registry(ledger.state).enter(ledger, registration, lambda _state: None)
        ledger.withdraw(dataset)
        account = ledger.state.account(dataset)
        runs = {name: run for name, run in ledger.state.runs.items() if run.dataset in account}
    descendants = [
        Descendant(name, *_study(node, name), run.dataset, len(run.attempts))
        for name, run in sorted(runs.items())
        if run.attempts
    ]
    forget_ended(node)
    return descendants


def _study(node: NodeFiles, run: str) -> tuple[str, str]:
    try:
        study = node.approved.study(run)
    except DataError:
        try:
            study = node.offers.find(run).study
        except SettingsError:
            return "not known any more", "not known any more"
    return study.study.name, study.model.shown_source
