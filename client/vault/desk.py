"""What an operator decides about: a study beside the policy, the records and the ledger, in figures and in words.

Models and tokenizers are imported where they are used: most of what an operator asks needs neither.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from client.settings import Folders, NodeSettings, folders, load_node
from client.vault.approval import approve
from client.vault.approved_runs import ApprovedRuns
from client.vault.books import Books, Limit
from client.vault.ledger import Ledger
from client.vault.offers import Offers
from client.vault.policy import FLOAT_BYTES, objections
from client.vault.record_index import RecordIndex, node_key
from client.vault.roles import unit_name
from shared.errors import BudgetError, PolicyRefusal, SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.planning import plan
from shared.study import Study

if TYPE_CHECKING:
    from client.vault.snapshot import Facts, Snapshot
    from shared.foundation import Foundation
    from shared.tasks.rows import Table

LEDGER_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Question:
    """What one study asks of one dataset."""

    study: str
    study_sha256: str
    dataset: str
    purpose: str
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
    unit: str
    objections: tuple[str, ...]
    """Why the policy forbids it; empty if it does not."""
    records: "Facts"
    """About the records; for the operator's eyes only."""

    @property
    def in_words(self) -> str:
        """For somebody who has to say yes or no."""
        left, facts = self.epsilon_limit - self.epsilon_after, self.records
        purpose = f" Its purpose, as declared: {self.purpose}." if self.purpose else ""
        labels = ", ".join(f"{label} {count}" for label, count in facts.labels.items())
        problems = "".join(f"\n  {line}" for line in facts.problems)
        return (
            f"The study {self.study!r} trains {self.trains} on {self.dataset!r} in {self.rounds} rounds.{purpose} "
            f"In each, {self.bytes_per_round} bytes of noisy adapter leave this house, nothing else that depends on a "
            f"{self.unit}. Afterwards the records have promised epsilon {self.epsilon_after:.3f} of "
            f"{self.epsilon_limit:g} (delta {self.delta:g}); {max(0.0, left):.3f} is left for all studies to come.\n"
            f"For your eyes only: {facts.train} records of {facts.units} {self.unit}s to train on"
            f"{f' ({labels})' if labels else ''}, {facts.unusable} of them unusable, "
            f"{facts.holdout} held out, {facts.dropped} left out.{problems}"
        )


@dataclass(frozen=True)
class Weighed:
    """A question, and everything that a yes to it would enter and keep."""

    question: Question
    study: Study
    dataset: str
    rows: list[dict[str, Any]]
    """For the ledger, before the approval itself."""
    taken: "Snapshot"


class Desk:
    """The operator's desk: opens the node's books for as long as it is asked something.

    Args:
        config: the node's settings.
    """

    def __init__(self, config: Path) -> None:
        self.config = config

    @cached_property
    def settings(self) -> NodeSettings:
        """As they were when this desk was opened."""
        return load_node(self.config)

    @cached_property
    def folders(self) -> Folders:
        """Where the node keeps its things."""
        return folders(self.config, self.settings)

    @property
    def offers(self) -> Offers:
        """Studies that the server showed."""
        return Offers(self.folders.offers)

    @property
    def approved(self) -> ApprovedRuns:
        """Snapshots of what was approved."""
        return ApprovedRuns(self.folders.approved)

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The node's ledger, verified."""
        found = self.folders
        with Ledger(found.ledger, second=found.second, patience_s=LEDGER_PATIENCE_S) as opened:
            yield opened

    def ask(self, ledger: Ledger, study: Study, dataset: str) -> Question:
        """Weigh a study against the policy and what the ledger would say; enters nothing into the ledger."""
        return self.weigh(ledger, study, dataset).question

    def weigh(self, ledger: Ledger, study: Study, dataset: str) -> "Weighed":
        """The same, with the records that were weighed: what is approved is what was shown."""
        table = self._table(study, dataset)
        taken = self._snapshot(study, dataset, table)
        rows = self._registration(ledger.books, study, dataset, table)
        return Weighed(self._question(ledger, study, dataset, rows, taken.facts), study, dataset, rows, taken)

    def fits(self, books: Books, study: Study, dataset: str) -> bool:
        """Whether the study fits into what the dataset may spend, as far as the ledger knows its records."""
        policy = self.settings.policy(dataset)
        limit, history = Limit(policy.epsilon, policy.delta), []
        if dataset in books.limits:
            limit, history = _stricter(books.limit(dataset), limit), books.history(dataset, earmarked=True)
        whole = plan(study.privacy, steps=study.total_steps).release(study.total_steps)
        return epsilon_rdp([*history, whole], limit.delta) <= limit.epsilon

    def objections(self, study: Study, dataset: str, *, underway: bool = False) -> list[str]:
        """Why the policy of a dataset forbids a study; public.

        A study that is underway spends round by round, so what it would cost as a whole is no objection any more.
        """
        dimension = dimension_of(study.canonical_json(), self.foundation(study).directory)
        return objections(self.settings.policy(dataset), study, dimension=dimension, underway=underway)

    def foundation(self, study: Study) -> "Foundation":
        """The study's base model among this node's own.

        Raises:
            SettingsError: the study does not pin one, or it is not here.
        """
        if study.model.fingerprint is None:
            raise SettingsError("Expected a study that pins model.fingerprint, got one that does not.")
        from shared.foundation import find_by_fingerprint

        return find_by_fingerprint(study.model.fingerprint, self.folders.models)

    def approve(self, ledger: Ledger, weighed: "Weighed", run: str) -> None:
        """Enter a yes: the whole worst case is earmarked, the records are kept as they were weighed.

        Raises:
            PolicyRefusal: the policy forbids it, or the run was rejected; the operator changes the policy or says no.
            BudgetError: it does not fit into what the records may spend.
        """
        self.offers.check_open(run)
        question, dataset = weighed.question, weighed.dataset
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
        if run in ledger.books.runs:
            raise PolicyRefusal(f"Expected a run that was not approved before, got {run!r}.")
        for row in weighed.rows:
            ledger.enter(row)
        # first what it will train on, then the yes: a crash in between leaves files that nobody asks for
        size, taken = self.settings.policy(dataset).declared_size, weighed.taken
        self.approved.keep(run, weighed.study, declared_size=size, train=taken.train, holdout=taken.holdout)
        approve(ledger, weighed.study, dataset=dataset, run=run)

    def reject(self, ledger: Ledger, run: str) -> str:
        """Say no; a run that was approved is closed, and what it earmarked and did not use is given back.

        Returns:
            The run's full name.
        """
        approved = ledger.books.runs
        name = run if run in approved else self.offers.find(run).run
        if name in approved and not approved[name].closed:
            ledger.close_run(name)
            self.approved.forget(name)
        if any(offered.run == name for offered in self.offers.all()):
            self.offers.reject(name)
        return name

    def _question(
        self, ledger: Ledger, study: Study, dataset: str, rows: list[dict[str, Any]], facts: "Facts"
    ) -> Question:
        policy = self.settings.policy(dataset)
        books = copy.deepcopy(ledger.books)
        for row in rows:
            books.apply(row)
        planned = plan(study.privacy, steps=study.total_steps)
        whole = planned.release(study.total_steps)
        # the ledger keeps what was declared first; node.toml may only be stricter
        limit = _stricter(books.limit(dataset), Limit(policy.epsilon, policy.delta))
        history = books.history(dataset, earmarked=True)
        dimension = dimension_of(study.canonical_json(), self.foundation(study).directory)
        return Question(
            study=study.study.name,
            study_sha256=study.sha256,
            dataset=dataset,
            purpose=study.study.description.rstrip("."),
            trains=f"a {study.adapter.method} adapter of {study.model.source}",
            rounds=study.federation.rounds,
            steps=study.total_steps,
            bytes_per_round=dimension * FLOAT_BYTES,
            noise_multiplier=planned.noise_multiplier,
            sampling_rate=planned.sampling_rate,
            epsilon_alone=epsilon_rdp([whole], limit.delta),
            epsilon_promised=epsilon_rdp(history, limit.delta),
            epsilon_after=epsilon_rdp([*history, whole], limit.delta),
            epsilon_limit=limit.epsilon,
            delta=limit.delta,
            unit=policy.unit,
            objections=tuple(self.objections(study, dataset)),
            records=facts,
        )

    def snapshot(self, study: Study, dataset: str) -> "Snapshot":
        """What the study would train on now."""
        return self._snapshot(study, dataset, self._table(study, dataset))

    def _snapshot(self, study: Study, dataset: str, table: pd.DataFrame) -> "Snapshot":
        from client.vault.snapshot import take_snapshot

        policy = self.settings.policy(dataset)
        return take_snapshot(table, policy, study, self.foundation(study), key=node_key(self.folders.records[1]))

    def _table(self, study: Study, dataset: str) -> pd.DataFrame:
        policy = self.settings.policy(dataset)
        others = [policy.unit_column] if policy.unit_column else []
        return self._reader(study, dataset).read(self.config.resolve().parent / policy.source, *others)

    def _reader(self, study: Study, dataset: str) -> "Table":
        from shared.tasks.kinds import task_kind
        from shared.tasks.rows import Table

        return Table(task_kind(study.task), self.settings.policy(dataset).columns)

    def _registration(self, books: Books, study: Study, dataset: str, table: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows that are missing before an approval: the dataset's limit, and ties by the records it holds now."""
        policy = self.settings.policy(dataset)
        index, key = self.folders.records
        identities = self._reader(study, dataset).identities(table)
        if policy.unit_column is not None:
            # whoever is in two datasets has one budget, whatever the rows say
            identities += [f"{policy.unit} {unit_name(value)}" for value in table[policy.unit_column] if value.strip()]
        others = RecordIndex(index, node_key(key)).enter(dataset, identities)
        limit = {"kind": "register", "dataset": dataset, "epsilon": policy.epsilon, "delta": policy.delta}
        new = others & set(books.limits) - books.ties.get(dataset, set())
        ties = [{"kind": "tie", "dataset": dataset, "other": other} for other in sorted(new)]
        return ties if dataset in books.limits else [limit, *ties]


@lru_cache(maxsize=64)
def dimension_of(study_json: str, directory: Path) -> int:
    """Floats in one update of a study."""
    from shared.adapted_model import layout_of
    from shared.foundation import Foundation

    return layout_of(Study.model_validate_json(study_json), Foundation(directory, "")).length


def _stricter(one: Limit, other: Limit) -> Limit:
    return Limit(min(one.epsilon, other.epsilon), min(one.delta, other.delta))
