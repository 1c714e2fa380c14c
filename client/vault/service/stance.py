"""This node's stance to a study on offer: a function of public facts and the ledger.

No record is looked at, so none can change the answer.
"""

import logging
from contextlib import suppress

from client.vault.ledger.approval import whole_study
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import LedgerState
from client.vault.records.dataset import Dataset
from client.vault.review.node_files import NodeFiles
from client.vault.review.offers import Offered
from client.vault.review.review import StudyReview
from shared.errors import BudgetError, PolicyRefusal, SettingsError
from shared.protocol.messages import OfferReply, Status, StudyOffer
from shared.study.declaration import Study

log = logging.getLogger(__name__)


def stance(node: NodeFiles, offer: StudyOffer) -> OfferReply:
    """Keep a study for a person to decide on, and return how this node stands to it; of an approved one, its size.

    Raises:
        PeerError: it is no study, or one offer too many.
        LedgerError: the ledger cannot be trusted.
    """
    status, size = _status_of(node, offer), 0
    if status is Status.APPROVED:
        with suppress(OSError, ValueError):  # a run whose files are gone is refused when it is asked to train
            size = node.approved.declared_size(offer.study_run)
    return OfferReply(offer.study_run, status, declared_size=size)


def _status_of(node: NodeFiles, offer: StudyOffer) -> Status:
    offered, review = node.offers.receive(offer), StudyReview(node)
    study = offered.study
    allowed, reason = _allowed(node, review, study)
    with node.open_ledger() as ledger:
        run = ledger.state.runs.get(offered.run)
        if said_no(offered, ledger.state) or (run is not None and run.closed):
            return Status.REJECTED
        if run is not None:
            if run.study_sha256 != study.sha256:
                return Status.REFUSED_STUDY
            lost = run.roster is not None and node.sums.identity(offered.run) is None
            return Status.OUT_OF_SECURE_SUM if lost else Status.APPROVED
        unchanged = [dataset for dataset in allowed if not dataset.changes(ledger.state)]
        if not unchanged:
            return reason
        # an account's rules are answered as its budget is: neither says which datasets share records
        state = ledger.state
        possible = [
            dataset
            for dataset in unchanged
            if not review.objections(study, dataset, state)
            and dataset.budget(state).fits(whole_study(state, study, dataset.name, terms=dataset.terms))
        ]
        return _approved_by_policy(review, ledger, offered, possible) if possible else Status.REFUSED_BUDGET


def said_no(offered: Offered, state: LedgerState) -> bool:
    """Return true if the latest decision about a run is a no; one from before these were rows is in the offer."""
    answer = state.answer(offered.run)
    return offered.rejected if answer is None else answer == "no"


def _allowed(node: NodeFiles, review: StudyReview, study: Study) -> tuple[list[Dataset], Status]:
    """Return the datasets that node.toml lets the study have, and the reason to give if it has none."""
    try:
        node.base_files(study)
        allowed = [dataset for dataset in node.datasets.values() if not review.objections(study, dataset)]
    except SettingsError as error:
        log.error("A study was refused for its base model: %s", error)
        return [], Status.REFUSED_MODEL
    return allowed, Status.REFUSED_POLICY


def _approved_by_policy(review: StudyReview, ledger: Ledger, offered: Offered, possible: list[Dataset]) -> Status:
    dataset = possible[0]
    unasked = dataset.policy.approval == "within-policy" and dataset.name in ledger.state.limits
    # a policy that does not say yes to evaluations leaves them to a person
    unasked = unasked and (offered.study.evaluation is None or dataset.rules(ledger.state).evaluation == "yes")
    if len(possible) != 1 or not unasked or ledger.state.troubles(dataset.name):
        return Status.AWAITING_APPROVAL
    try:
        review.approve_within_policy(ledger, offered.study, dataset, offered.run)
    except (BudgetError, PolicyRefusal) as error:
        log.error("%s was not approved by itself: %s", offered.run, error)
        return Status.AWAITING_APPROVAL
    log.info("%s was approved by the policy of %s.", offered.run, dataset.name)
    return Status.APPROVED
