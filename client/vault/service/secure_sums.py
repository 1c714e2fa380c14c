"""Applies the node's settings to secure sums: with whom it takes part in a run's sum, and how parts of it leave."""

from collections.abc import Callable
from dataclasses import replace

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import EVALUATION, ApprovedRun
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.review.node_files import NodeFiles
from client.vault.secure_sum.admission import Admission
from client.vault.secure_sum.masked_counts import MaskedCounts, OwnCounts
from shared.errors import PolicyRefusal
from shared.protocol.messages import EvaluationTask, LegTask, Status, TrainTask
from shared.secure_sum.thresholds import OwnPolicy
from shared.study.declaration import Study

Admit = Callable[[Ledger, TrainTask | EvaluationTask], Status | None]


def own_policy(node: NodeFiles, state: LedgerState, task: LegTask, approved: ApprovedRun) -> OwnPolicy:
    """Return what is asked of a run's secure sum, by node.toml as it is today and by the quorum that was approved.

    Raises:
        SettingsError: node.toml has no rule for it any more.
        PolicyRefusal: it says no to evaluations, and the sum is one of counts.
    """
    run, rules = task.study_run, node.dataset(approved.dataset).rules(state)
    if task.purpose == EVALUATION and rules.evaluation == "no":
        raise PolicyRefusal('Expected evaluation = "ask" or "yes" to help open a sum of counts, got "no".')
    own = node.settings.own_policy(rules)
    return replace(own, smallest_cohort=max(own.smallest_cohort, node.approved.study(run).federation.quorum))


def admission(node: NodeFiles, study: Study, dataset: Dataset | None) -> Admit:
    """Return what admits the roster of a question; a study without a secure sum has none, and takes part with none."""
    if study.federation.secure_sum is None:
        return lambda _ledger, task: Status.REFUSED_STUDY if task.roster else None
    if dataset is None:
        return lambda _ledger, _task: Status.REFUSED_POLICY

    def admit(ledger: Ledger, task: TrainTask | EvaluationTask) -> Status | None:
        own = node.settings.own_policy(dataset.rules(ledger.state))
        return Admission(node.sums, study, own, dataset.limits)(ledger, task)

    return admit


def counts_leave(node: NodeFiles, study: Study, dataset: Dataset | None) -> OwnCounts:
    """Return how the counts of an evaluation leave: as they are, or as a part of a secure sum."""
    admit = admission(node, study, dataset)
    return OwnCounts(admit) if study.federation.secure_sum is None else MaskedCounts(study, node.sums, admit)
