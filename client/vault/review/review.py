"""Reviewing a study beside the policy, the records and the ledger, and entering the decision.

Models and tokenizers are imported where they are used: most of what an operator asks needs neither.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from client.policy import DatasetPolicy, objections
from client.vault.ledger.approval import approve, check_approval
from client.vault.ledger.ledger import NOBODYS, Ledger
from client.vault.ledger.registration import Registration, Registry
from client.vault.ledger.rows import decided
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.records.source import columns_read, read_source, reader_of
from client.vault.review.node_files import NodeFiles
from client.vault.review.registering import (
    refuse_changes,
    refuse_objections,
    registered_rows,
    registration_of,
)
from client.vault.review.summary import StudySummary, summarise
from shared.errors import PolicyRefusal
from shared.records.ragged import Records
from shared.study.declaration import Study, recorded

if TYPE_CHECKING:
    import pandas as pd

    from client.vault.records.snapshot import Snapshot


BY_POLICY = "the policy in node.toml"
OnStage = Callable[[str, int, int], None]
STAGES = 4
"""Of a review: base model, reading, encoding, ledger."""


@dataclass(frozen=True)
class ReviewedStudy:
    """A reviewed study, with the ledger row and the record snapshot that approving it would write."""

    summary: StudySummary
    study: Study
    dataset: Dataset
    rules: DatasetPolicy
    """The dataset's policy, with what others that share records with it ask for beside it."""
    registration: Registration
    """The dataset with the records that it held."""
    snapshot: "Snapshot"


class StudyReview:
    """An operator's review of studies on one node.

    Args:
        node: its settings, datasets and folders.
        on_stage: receives what a review does now, and how many of how many stages are done.
    """

    def __init__(self, node: NodeFiles, on_stage: OnStage = lambda _what, _done, _total: None) -> None:
        self._node, self._on_stage = node, on_stage

    def review(self, study: Study, dataset: Dataset) -> ReviewedStudy:
        """Compare a study with the policy, the records and the ledger; enters nothing anywhere.

        Reading and tokenising may take minutes; the ledger is not held meanwhile.

        Raises:
            SettingsError: the base model is not here, or cannot carry the study out.
            DataError: the source cannot be read.
            LedgerError: the ledger or its record index cannot be trusted.
        """
        self._on_stage("Opening the base model", 0, STAGES)
        dimension = self._dimension(study)
        self._on_stage(f"Reading the records of {dataset.name!r}", 1, STAGES)
        registry, table = self._node.registry(self._node.ledger_state()), read_source(dataset, study)
        self._on_stage(f"Encoding {len(table):,} records of {dataset.name!r}", 2, STAGES)
        snapshot = self._snapshot(study, dataset, table, registry)
        self._on_stage("Comparing the records with the ledger", 3, STAGES)
        registration = registration_of(registry, dataset, table)
        state = registry.look(registration)
        columns = columns_read(dataset.policy, study)
        reasons = self.objections(study, dataset, state)
        summary = summarise(
            study,
            dataset,
            state,
            dimension=dimension,
            columns=columns,
            objections=[*dataset.changes(state), *reasons],
            facts=snapshot.facts,
        )
        return ReviewedStudy(summary, study, dataset, dataset.rules(state), registration, snapshot)

    def objections(self, study: Study, dataset: Dataset, state: LedgerState | None = None) -> list[str]:
        """Return why the policy of a dataset forbids a study; public.

        Args:
            study: as declared.
            dataset: as node.toml declares it.
            state: of the ledger, which knows the datasets that share records with this one, and whose policies count
                as well; None leaves them out.

        Raises:
            SettingsError: the base model is not here, or cannot carry the study out.
        """
        rules, columns = dataset.policy if state is None else dataset.rules(state), columns_read(dataset.policy, study)
        both_sides = state is not None and state.on_both_sides(dataset.name, dataset.terms)
        reasons = objections(rules, study, dimension=self._dimension(study), columns=columns, both_sides=both_sides)
        if state is not None and reasons and rules != dataset.policy:
            account = ", ".join(sorted(state.account(dataset.name)))
            reasons.append(f"{account} share records, and the strictest of them counts")
        return reasons

    def ways_to_send(self, study: Study) -> dict[str, int]:
        """Return the bytes of one update by encoding, and what other ways of training the same model would send.

        A way that the model or the adapter rules out is left out.
        """
        from shared.adapted_model.payload_sizes import adapter_bytes, full_lora_bytes, full_model_bytes

        base_files = self._node.base_files(study)
        sizes = {f"this adapter as {wire}": size for wire, size in adapter_bytes(study, base_files).items()}
        full_lora = full_lora_bytes(study, base_files)
        if full_lora is not None:
            sizes["LoRA's A and B in all layers"] = full_lora
        return sizes | {"the whole model": full_model_bytes(study, base_files)}

    def approve(self, ledger: Ledger, reviewed: ReviewedStudy, run: str, words: Mapping[str, str] = NOBODYS) -> None:
        """Enter a yes: the records, then the whole worst case; the records are kept as they were reviewed.

        The rows are two, whatever the records hold and share. A no before it stays in the ledger and counts no more.

        Args:
            ledger: held.
            reviewed: the study beside policy, records and ledger.
            run: of the study.
            words: who decided and why, from `decided`.

        Raises:
            PolicyRefusal: the policy forbids it, or the run was approved before; if it was rejected then, for good.
            BudgetError: it does not fit into what the records may spend.
        """
        node, study, dataset = self._node, reviewed.study, reviewed.dataset
        refuse_objections(dataset, list(reviewed.summary.objections))
        if run in ledger.state.runs:
            refuse_second_approval(ledger.state, run)

        def check(state: LedgerState) -> None:
            # the ledger may have grown since the review
            refuse_changes(dataset, state)
            refuse_objections(dataset, self.objections(study, dataset, state))
            check_approval(state, study, dataset=dataset.name, declared=dataset.limits)

        node.registry(ledger.state).enter(ledger, reviewed.registration, check)
        # first what it will train on, then the yes: a crash in between leaves files that nobody asks for
        size, snapshot = dataset.terms.declared_size, reviewed.snapshot
        node.approved.keep(run, study, declared_size=size, train=snapshot.train, holdout=snapshot.holdout)
        approve(ledger, study, dataset=dataset.name, run=run, declared=dataset.limits, words=words)
        node.offers.reopen(run)

    def approve_within_policy(self, ledger: Ledger, study: Study, dataset: Dataset, run: str) -> None:
        """Enter the policy's yes, for a dataset that was registered before. Looks at no record.

        The records are taken by the first round, after it is paid for. The row is one.

        Raises:
            PolicyRefusal: the dataset was withdrawn, or the run was rejected or approved before.
            BudgetError: it does not fit into what the records may spend.
        """
        self._node.offers.check_open(run)
        check_approval(ledger.state, study, dataset=dataset.name, declared=dataset.limits)
        self._node.approved.keep(run, study, declared_size=dataset.terms.declared_size)
        words = decided(by=BY_POLICY)
        approve(ledger, study, dataset=dataset.name, run=run, declared=dataset.limits, words=words)

    def materialise(self, study: Study, dataset: Dataset, run: str) -> Records:
        """Return the records that a run trains on, as its approval kept them.

        If the policy approved it, no record was read then: the records of today that were registered are kept now.

        Raises:
            DataError: the source cannot be read.
            LedgerError: the ledger or its record index cannot be trusted.
        """
        approved = self._node.approved
        if not approved.taken(run):
            registry, table = self._node.registry(self._node.ledger_state()), read_source(dataset, study)
            snapshot = self._snapshot(study, dataset, table[registered_rows(registry, dataset, table)], registry)
            approved.take(run, train=snapshot.train, holdout=snapshot.holdout)
        return approved.train(run)

    def reject(self, ledger: Ledger, run: str, words: Mapping[str, str] = NOBODYS) -> str:
        """Say no, as a row of its own; a run that was approved is ended first. What was said before stays on record.

        Returns:
            The run's full name.
        """
        name = self.end(ledger, run)
        # after the row that ends the run: a crash in between leaves nothing that goes on in spite of a no
        ledger.reject(name, words)
        return name

    def end(self, ledger: Ledger, run: str) -> str:
        """Close a run that was approved, which gives back what it earmarked and did not use, and turn its offer down.

        Returns:
            The run's full name.
        """
        node, approved = self._node, ledger.state.runs
        name = run if run in approved else node.offers.find(run).run
        if name in approved and not approved[name].closed:
            ledger.close_run(name)
            node.sums.forget(name)
            node.approved.forget(name)
        if any(offered.run == name for offered in node.offers.all()):
            node.offers.reject(name)
        return name

    def _dimension(self, study: Study) -> int:
        return dimension_of(study.canonical_json(), self._node.base_files(study).directory)

    def _snapshot(self, study: Study, dataset: Dataset, table: "pd.DataFrame", registry: Registry) -> "Snapshot":
        from client.vault.records.snapshot import SplitRule, take_snapshot

        policy, version = dataset.policy, registry.identity_version(dataset.name)
        reader = reader_of(policy, study)
        processor = reader.kind.processor(self._node.base_files(study))
        rule = SplitRule(
            registry.key,
            policy.holdout,
            policy.unit_column,
            names=policy.columns,
            identity_version=version,
            split_by=policy.split_by,
        )
        most, evaluation = study.privacy.records_per_unit, study.evaluation
        return take_snapshot(table, reader, processor, rule, records_per_unit=most, evaluation=evaluation)


def refuse_second_approval(state: LedgerState, run: str) -> None:
    """Refuse to approve a run once more.

    Raises:
        PolicyRefusal: always; it says whether the run goes on.
    """
    if state.is_over(run):
        ended = "was rejected" if state.answer(run) == "no" else "is closed"
        raise PolicyRefusal(f"Expected a study that is open, {run!r} {ended}.", hint="Ask for another run.")
    raise PolicyRefusal(f"Expected a run that was not approved before, got {run!r}.")


@lru_cache(maxsize=64)
def dimension_of(study_json: str, directory: Path) -> int:
    """Return the number of floats in one update of a study."""
    from shared.adapted_model.model import layout_of
    from shared.base_models.locate import BaseModelFiles

    study = recorded(json.loads(study_json), where="study")
    return layout_of(study, BaseModelFiles(directory, "", study.model.fingerprint_version)).length
