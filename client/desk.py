"""What an operator decides about: a study beside the policy and the ledger, in figures and in words."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.settings import NodeSettings
from client.vault.accountable import approve
from client.vault.books import Books, Limit
from client.vault.ledger import Ledger
from client.vault.policy import FLOAT_BYTES, objections
from client.vault.record_index import RecordIndex, node_key
from client.vault.sources import read_table
from shared.adapted_model import layout_of
from shared.errors import BudgetError, PolicyRefusal
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.planning import plan
from shared.study import Study


@dataclass(frozen=True)
class Question:
    """What one study asks of one dataset."""

    study: str
    study_sha256: str
    dataset: str
    trains: str
    rounds: int
    steps: int
    bytes_per_round: int
    noise_multiplier: float
    sampling_rate: float
    epsilon_alone: float
    """Cost of the whole study by itself."""
    epsilon_promised: float
    """Spent and earmarked by the records' account before it."""
    epsilon_after: float
    """Spent and earmarked with it."""
    epsilon_limit: float
    """The most the account may ever spend."""
    delta: float
    objections: tuple[str, ...]
    """Why the policy forbids it; empty if it does not."""

    @property
    def in_words(self) -> str:
        """For somebody who has to say yes or no."""
        left = self.epsilon_limit - self.epsilon_after
        return (
            f"The study {self.study!r} trains {self.trains} on {self.dataset!r} in {self.rounds} rounds. In each, "
            f"{self.bytes_per_round} bytes of noisy adapter leave this house, nothing else that depends on a record. "
            f"Afterwards the records have promised epsilon {self.epsilon_after:.3f} of {self.epsilon_limit:g} "
            f"(delta {self.delta:g}); {max(0.0, left):.3f} is left for all studies to come."
        )


class Desk:
    """The operator's desk: opens the node's books for as long as a command runs.

    Args:
        settings: of the node.
        folder: that `node.toml` lies in; its paths are relative to it.
    """

    def __init__(self, settings: NodeSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._home = folder / settings.node.home

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The node's ledger, verified."""
        second = self._folder / self._settings.node.ledger_copy / "head.json"
        with Ledger(self._home / "ledger.db", second=second) as opened:
            yield opened

    def ask(self, ledger: Ledger, study: Study, dataset: str) -> Question:
        """Weigh a study against the policy and what the ledger would say; enters nothing into the ledger."""
        policy = self._settings.policy(dataset)
        books = copy.deepcopy(ledger.books)
        for row in self._registration(books, dataset):
            books.apply(row)
        planned = plan(study.privacy, steps=study.total_steps)
        whole = planned.release(study.total_steps)
        entered = books.limit(dataset)
        # the ledger keeps what was declared first; node.toml may only be stricter
        limit = Limit(min(entered.epsilon, policy.epsilon), min(entered.delta, policy.delta))
        dimension = layout_of(study).length
        return Question(
            study=study.study.name,
            study_sha256=study.sha256,
            dataset=dataset,
            trains=f"a {study.adapter.method} adapter of {study.model.source}",
            rounds=study.federation.rounds,
            steps=study.total_steps,
            bytes_per_round=dimension * FLOAT_BYTES,
            noise_multiplier=planned.noise_multiplier,
            sampling_rate=planned.sampling_rate,
            epsilon_alone=epsilon_rdp([whole], limit.delta),
            epsilon_promised=epsilon_rdp(books.history(dataset, earmarked=True), limit.delta),
            epsilon_after=epsilon_rdp([*books.history(dataset, earmarked=True), whole], limit.delta),
            epsilon_limit=limit.epsilon,
            delta=limit.delta,
            objections=tuple(objections(policy, study, dimension=dimension)),
        )

    def approve(self, ledger: Ledger, study: Study, dataset: str, run: str) -> None:
        """Enter a yes.

        Raises:
            PolicyRefusal: the policy forbids it; the operator changes the policy or says no.
            BudgetError: it does not fit into what the records may spend.
        """
        question = self.ask(ledger, study, dataset)
        if question.objections:
            raise PolicyRefusal(
                f"Expected a study within the policy of {dataset!r}, got: {'; '.join(question.objections)}.",
                hint="The stricter of study and policy wins. Change node.toml, or say no.",
            )
        if question.epsilon_after > question.epsilon_limit:
            raise BudgetError(
                f"Expected a study that fits into epsilon={question.epsilon_limit:g} of {dataset!r}, "
                f"it would promise {question.epsilon_after:.3f}.",
                hint=f"{question.epsilon_promised:.3f} is spent or earmarked already.",
            )
        for row in self._registration(ledger.books, dataset):
            ledger.enter(row)
        approve(ledger, study, dataset=dataset, run=run)

    def _registration(self, books: Books, dataset: str) -> list[dict[str, Any]]:
        """Rows that are missing before an approval: the dataset's limit, and ties by the records it holds now."""
        policy = self._settings.policy(dataset)
        texts = read_table(self._folder / policy.source, [policy.text_column])[policy.text_column]
        others = RecordIndex(self._home / "records.db", node_key(self._home / "record.key")).enter(dataset, texts)
        limit = {"kind": "register", "dataset": dataset, "epsilon": policy.epsilon, "delta": policy.delta}
        new = others & set(books.limits) - books.ties.get(dataset, set())
        ties = [{"kind": "tie", "dataset": dataset, "other": other} for other in sorted(new)]
        return ties if dataset in books.limits else [limit, *ties]
