"""What an operator decides about: a study beside the policy, the records and the ledger, in figures and in words.

Models and tokenizers are imported where they are used: most of what an operator asks needs neither.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from client.policy import objections
from client.settings import Folders, NodeSettings, folders, load_node
from client.vault.ledger.approval import approve, check_approval
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.registration import Registration, Registry
from client.vault.ledger.state import DatasetTerms, LedgerState, Limit
from client.vault.records.approved_runs import ApprovedRuns
from client.vault.records.splits import unit_name
from client.vault.review.offers import Offers
from shared.errors import BudgetError, PolicyRefusal, SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import plan
from shared.privacy.study_steps import batch_of
from shared.protocol.update_encoding import packed_bytes
from shared.records.tables import columns_of, content_columns, identity, read_table
from shared.study.declaration import Study, recorded
from shared.study.tasks import MEDIA

if TYPE_CHECKING:
    from client.vault.records.snapshot import Facts, Snapshot
    from shared.base_models.locate import BaseModelFiles

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
    wire: str
    """How the values of an update travel."""
    noise_multiplier: float
    sampling_rate: float
    weight: float
    """Of this site in the mean, beside one of the study's typical size; 1 where all sites weigh the same."""
    measures: bool
    """Whether the first round sends noisy second moments of features, where the study measures first."""
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
        weighs = "" if self.weight == 1 else f" In the mean this site weighs {self.weight:.2g} times a typical one."
        sent = "noisy adapter"
        if self.measures:
            sent = "noisy second moments of the model's features (the first round) or noisy adapter (the others)"
        return (
            f"The study {self.study!r} trains {self.trains} on {self.dataset!r} in {self.rounds} rounds.{purpose} "
            f"In each, {self.bytes_per_round} bytes of {sent} ({self.wire}) leave this house, nothing else that "
            f"depends on a {self.unit}. Afterwards the records have promised epsilon {self.epsilon_after:.3f} of "
            f"{self.epsilon_limit:g} (delta {self.delta:g}); {max(0.0, left):.3f} is left for all studies to come."
            f"{weighs}\n"
            f"For your eyes only: {facts.train} records of {facts.units} {self.unit}s to train on"
            f"{f' ({labels})' if labels else ''}, {facts.unusable} of them unusable, "
            f"{facts.holdout} held out, {facts.dropped} left out.{problems}"
        )


@dataclass(frozen=True)
class ReviewedStudy:
    """A question, and everything that a yes to it would enter and keep."""

    question: Question
    study: Study
    registration: Registration
    """The dataset with the records that it held."""
    taken: "Snapshot"


class StudyReview:
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
        with Ledger(found.ledger, second_copy=found.second_copy, patience_s=LEDGER_PATIENCE_S) as opened:
            yield opened

    def state(self) -> LedgerState:
        """What the ledger adds up to now."""
        with self.ledger() as ledger:
            return ledger.state

    def ask(self, study: Study, dataset: str) -> Question:
        """Weigh a study against the policy and what the ledger would say; enters nothing anywhere."""
        return self.review(study, dataset).question

    def review(self, study: Study, dataset: str) -> "ReviewedStudy":
        """The same, with the records that were weighed: what is approved is what was shown.

        Reading and tokenising may take minutes; the ledger is not held meanwhile.
        """
        state = self.state()
        registry, table = Registry(*self.folders.records, state), self._table(dataset, study)
        taken = self._snapshot(study, dataset, table, registry.key)
        asked = self._registration(registry, dataset, table)
        question = self._question(registry.look(asked), study, dataset, taken.facts)
        return ReviewedStudy(question, study, asked, taken)

    def read(self, dataset: str) -> Registration:
        """What there is to register: the policy's terms, and the records as they are now."""
        return self._registration(Registry(*self.folders.records, self.state()), dataset, self._table(dataset))

    def register(self, ledger: Ledger, asked: Registration) -> None:
        """Enter a dataset's records before any study asks for them, or those that came to it since: one row.

        Raises:
            BudgetError: with what they share, more would be promised than may be spent.
            PolicyRefusal: node.toml does not say what the dataset was registered with.
        """
        changed = self.changed(ledger.state, asked.dataset)
        if changed:
            raise _refusal(asked.dataset, changed)
        registry = Registry(*self.folders.records, ledger.state)
        registry.enter(ledger, asked, lambda state: state.check_promises(asked.dataset))

    def fits(self, state: LedgerState, study: Study, dataset: str) -> bool:
        """Whether the study fits into what the dataset may spend, as far as the ledger knows its records."""
        policy = self.settings.policy(dataset)
        limit, history = Limit(policy.epsilon, policy.delta), []
        if dataset in state.limits:
            limit, history = state.limit(dataset).stricter(limit), state.history(dataset, earmarked=True)
        whole = plan(study.privacy, steps=study.total_steps).release(study.total_steps)
        return epsilon_rdp([*history, whole], limit.delta) <= limit.epsilon

    def objections(self, study: Study, dataset: str, *, underway: bool = False) -> list[str]:
        """Why the policy of a dataset forbids a study; public.

        A study that is underway spends round by round, so what it would cost as a whole is no objection any more.
        """
        dimension = dimension_of(study.canonical_json(), self.base_files(study).directory)
        return objections(self.settings.policy(dataset), study, dimension=dimension, underway=underway)

    def changed(self, state: LedgerState, dataset: str) -> list[str]:
        """What node.toml says otherwise than when the dataset was registered; public."""
        now, then = self._terms(dataset), state.terms.get(dataset)
        if then is None or now == then:
            return []
        said = f"{dataset} was registered with one {then.unit} as its unit and declared_size = {then.declared_size}"
        return [f"{said}, node.toml says one {now.unit} and {now.declared_size}"]

    def base_files(self, study: Study) -> "BaseModelFiles":
        """The study's base model among this node's own.

        Raises:
            SettingsError: the study does not pin one, or it is not here.
        """
        if study.model.fingerprint is None:
            raise SettingsError("Expected a study that pins model.fingerprint, got one that does not.")
        from shared.base_models.locate import find_by_fingerprint

        return find_by_fingerprint(study.model.fingerprint, self.folders.models)

    def ways_to_send(self, study: Study) -> dict[str, int]:
        """Bytes of one update of the study by encoding, and what other ways of training the same model would send.

        A way that the model or the adapter rules out is left out.
        """
        from shared.adapted_model.payload_sizes import adapter_bytes, full_lora_bytes, full_model_bytes

        base_files = self.base_files(study)
        found = {f"this adapter as {wire}": size for wire, size in adapter_bytes(study, base_files).items()}
        with suppress(SettingsError):
            found["LoRA's A and B in all layers"] = full_lora_bytes(study, base_files)
        return found | {"the whole model": full_model_bytes(study, base_files)}

    def approve(self, ledger: Ledger, reviewed: "ReviewedStudy", run: str) -> None:
        """Enter a yes: the records, then the whole worst case; the records are kept as they were weighed.

        The rows are two, whatever the records hold and share.

        Raises:
            PolicyRefusal: the policy forbids it, or the run was rejected; the operator changes the policy or says no.
            BudgetError: it does not fit into what the records may spend.
        """
        self.offers.check_open(run)
        question, asked, study = reviewed.question, reviewed.registration, reviewed.study
        if question.objections:
            raise _refusal(asked.dataset, list(question.objections))
        if run in ledger.state.runs:
            raise PolicyRefusal(f"Expected a run that was not approved before, got {run!r}.")

        def check(state: LedgerState) -> None:
            # the ledger may have gone on since it was weighed
            changed = self.changed(state, asked.dataset)
            if changed:
                raise _refusal(asked.dataset, changed)
            _check_fits(self._question(state, study, asked.dataset, question.records))
            check_approval(state, study, dataset=asked.dataset)

        Registry(*self.folders.records, ledger.state).enter(ledger, asked, check)
        # first what it will train on, then the yes: a crash in between leaves files that nobody asks for
        size, taken = asked.terms.declared_size, reviewed.taken
        self.approved.keep(run, study, declared_size=size, train=taken.train, holdout=taken.holdout)
        approve(ledger, study, dataset=asked.dataset, run=run)

    def approve_unasked(self, ledger: Ledger, study: Study, dataset: str, run: str) -> None:
        """Enter the policy's yes, for a dataset that was registered before. Looks at no record.

        The records are taken by the first round, after it is paid for. The row is one.

        Raises:
            PolicyRefusal: the dataset was withdrawn, or the run was rejected or approved before.
            BudgetError: it does not fit into what the records may spend.
        """
        self.offers.check_open(run)
        check_approval(ledger.state, study, dataset=dataset)
        self.approved.keep(run, study, declared_size=self.settings.policy(dataset).declared_size)
        approve(ledger, study, dataset=dataset, run=run)

    def take(self, run: str, study: Study, dataset: str) -> None:
        """Keep what a run trains on, if its approval did not: the records of today that were registered."""
        if self.approved.taken(run):
            return
        registry, table = Registry(*self.folders.records, self.state()), self._table(dataset, study)
        identities, known = self._registration(registry, dataset, table).identities, registry.known(dataset)
        # each row by itself; identities stand column after column
        rows = [known.issuperset(filter(None, identities[row :: len(table)])) for row in range(len(table))]
        taken = self._snapshot(study, dataset, table[rows], registry.key)
        self.approved.take(run, train=taken.train, holdout=taken.holdout)

    def reject(self, ledger: Ledger, run: str) -> str:
        """Say no; a run that was approved is closed, and what it earmarked and did not use is given back.

        Returns:
            The run's full name.
        """
        approved = ledger.state.runs
        name = run if run in approved else self.offers.find(run).run
        if name in approved and not approved[name].closed:
            ledger.close_run(name)
            self.approved.forget(name)
        if any(offered.run == name for offered in self.offers.all()):
            self.offers.reject(name)
        return name

    def _question(self, state: LedgerState, study: Study, dataset: str, facts: "Facts") -> Question:
        """In these books the dataset's records are entered."""
        policy = self.settings.policy(dataset)
        planned = plan(study.privacy, steps=study.total_steps)
        whole = planned.release(study.total_steps)
        # the ledger keeps what was declared first; node.toml may only be stricter
        limit = state.limit(dataset).stricter(Limit(policy.epsilon, policy.delta))
        history = state.history(dataset, earmarked=True)
        dimension = dimension_of(study.canonical_json(), self.base_files(study).directory)
        return Question(
            study=study.study.name,
            study_sha256=study.sha256,
            dataset=dataset,
            purpose=study.study.description.rstrip("."),
            trains=f"a {study.adapter.method} adapter of {study.model.shown_source}",
            rounds=study.federation.rounds,
            steps=study.total_steps,
            bytes_per_round=packed_bytes(dimension, study.federation.wire),
            wire=study.federation.wire,
            noise_multiplier=planned.noise_multiplier,
            sampling_rate=planned.sampling_rate,
            weight=batch_of(study, policy.declared_size).weight,
            measures=study.measuring_rounds > 0,
            epsilon_alone=epsilon_rdp([whole], limit.delta),
            epsilon_promised=epsilon_rdp(history, limit.delta),
            epsilon_after=epsilon_rdp([*history, whole], limit.delta),
            epsilon_limit=limit.epsilon,
            delta=limit.delta,
            unit=policy.unit,
            objections=(*self.changed(state, dataset), *self.objections(study, dataset)),
            records=facts,
        )

    def snapshot(self, study: Study, dataset: str) -> "Snapshot":
        """What the study would train on now."""
        registry = Registry(*self.folders.records, self.state())
        return self._snapshot(study, dataset, self._table(dataset, study), registry.key)

    def _snapshot(self, study: Study, dataset: str, table: pd.DataFrame, key: bytes) -> "Snapshot":
        from client.vault.records.snapshot import SplitRule, take_snapshot
        from shared.tasks.registry import task_kind
        from shared.tasks.task_table import Table

        policy = self.settings.policy(dataset)
        reader = Table(task_kind(study.task), policy.columns)
        processor = reader.kind.processor(self.base_files(study))
        rule = SplitRule(key, policy.holdout, policy.unit_column)
        return take_snapshot(table, reader, processor, rule, records_per_unit=study.privacy.records_per_unit)

    def _table(self, dataset: str, study: Study | None = None) -> pd.DataFrame:
        """The columns that records are known by, those that the study reads, and the unit's."""
        policy = self.settings.policy(dataset)
        source = self.config.resolve().parent / policy.source
        names, optional = content_columns(columns_of(source), policy.columns), list[str]()
        if study is not None:
            from shared.tasks.registry import task_kind
            from shared.tasks.task_table import Table

            reader = Table(task_kind(study.task), policy.columns)
            names, optional = names | reader.names, reader.optional
        media = [column for name, column in names.items() if name in MEDIA]
        others = [policy.unit_column] if policy.unit_column else []
        return read_table(source, [*names.values(), *others], media, optional=optional)

    def _terms(self, dataset: str) -> DatasetTerms:
        policy = self.settings.policy(dataset)
        return DatasetTerms(policy.unit, policy.declared_size)

    def _registration(self, registry: Registry, dataset: str, table: pd.DataFrame) -> Registration:
        """What a record is known by: each text, image and recording in it, whichever study may read it."""
        policy = self.settings.policy(dataset)
        known = content_columns(table.columns, policy.columns)
        texts = [identity(cell) for column in known.values() for cell in table[column]]
        if policy.unit_column is not None:
            # whoever is in two datasets has one budget, whatever the rows say
            names = map(unit_name, table[policy.unit_column])
            texts += [f"{policy.unit} {name}" if name else "" for name in names]
        limit = Limit(policy.epsilon, policy.delta)
        return Registration(dataset, limit, self._terms(dataset), registry.identities(texts))


@lru_cache(maxsize=64)
def dimension_of(study_json: str, directory: Path) -> int:
    """Floats in one update of a study."""
    from shared.adapted_model.model import layout_of
    from shared.base_models.locate import BaseModelFiles

    return layout_of(recorded(json.loads(study_json), where="study"), BaseModelFiles(directory, "")).length


def _check_fits(question: Question) -> None:
    if question.epsilon_after > question.epsilon_limit:
        raise BudgetError(
            f"Expected a study that fits into epsilon={question.epsilon_limit:g} of {question.dataset!r}, "
            f"it would promise {question.epsilon_after:.3f}.",
            hint=f"{question.epsilon_promised:.3f} is spent or earmarked already.",
        )


def _refusal(dataset: str, objections: list[str]) -> PolicyRefusal:
    return PolicyRefusal(
        f"Expected a study within the policy of {dataset!r}, got: {'; '.join(objections)}.",
        hint="The stricter of study and policy wins. Change node.toml, or say no.",
    )
