"""The two questions of a secure sum after its masked vectors: sign the survivors, then open their sum.

The sum is of a round's parts or of an evaluation's counts. Both have rows, files and keys of their own.

| the question | the answer |
|---|---|
| of a run that nobody approved, or of another study | `refused_study` |
| of a run that is over | `rejected` |
| of a run whose roster this node has not taken, or today's pins and policy refuse | `refused_roster` |
| of a run whose keys, roster or share are gone, as after a restored backup | `out_of_secure_sum` |
| of a round that released nothing, or of another adapter, roster, study or purpose | `refused_survivors` |
| survivors without this node or its message, with strangers, too few, or others than it signed | `refused_survivors` |
| survivors or an opening of fewer nodes than policy and quorum ask for today | `refused_survivors` |
| survivors, for the first time | a row of the ledger, then its signature on them |
| an opening of another set, or with fewer signatures than the threshold | `refused_survivors` |
| whatever was answered before | the same bytes |
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from client.vault.ledger.approval import released_evaluation
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import EVALUATION, ApprovedRun
from client.vault.secure_sum.sum_files import SumFiles
from client.vault_api.messages import read_evaluation, read_reply
from shared.protocol.messages import LegReply, LegTask, Status, without_content
from shared.secure_sum.context import RoundContext
from shared.secure_sum.node import MaskedRow, Member, SurvivorsRow, open_sum, sign_survivors
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.thresholds import OwnPolicy

log = logging.getLogger(__name__)


class Released(NamedTuple):
    """This node's contribution to a sum."""

    adapter_sha256: str
    masked: bytes


def answer_leg(ledger: Ledger, files: SumFiles, task: LegTask, policy: Callable[[ApprovedRun], OwnPolicy]) -> LegReply:
    """Answer one question of a secure sum.

    Guarantee: nothing is signed or opened with peers whom the operator's pins and policy of today do not allow.
    Guarantee: a set of survivors is a row of the ledger before this node's signature on it leaves.

    Args:
        ledger: held.
        files: this node's keys and rosters.
        task: of the server.
        policy: returns what the operator asks of a run today.

    Raises:
        LedgerError: the ledger cannot be written, or what was released is not what it says.
        OSError: the disk fails.
    """
    run = ledger.state.runs.get(task.study_run)
    if run is None or run.study_sha256 != task.study_sha256:
        return without_content(task, Status.REFUSED_STUDY)
    if ledger.state.is_over(task.study_run):
        return without_content(task, Status.REJECTED)
    if run.roster is None:
        return without_content(task, Status.REFUSED_ROSTER)
    member, released = _member(files, task.study_run, run.roster), _released(ledger, task)
    part = files.part(task.study_run, task.round, task.purpose)
    if member is None or (released is not None and part is None):
        log.error("Round %d of %s: its keys are gone from this node.", task.round, task.study_run)
        return without_content(task, Status.OUT_OF_SECURE_SUM)
    if released is None or part is None:
        log.error("Round %d of %s: this node added nothing to the sum.", task.round, task.study_run)
        return without_content(task, Status.REFUSED_SURVIVORS)
    own = policy(run)
    try:
        own.check(member.roster.numbers.thresholds, (peer.fingerprint for peer in member.roster.peers(member.name)))
    except SecureSumError as error:
        log.error("Round %d of %s: its roster is refused by the policy of today: %s", task.round, task.study_run, error)
        return without_content(task, Status.REFUSED_ROSTER)
    member, study = replace(member, smallest_cohort=own.smallest_cohort), run.study_sha256
    context = RoundContext(task.study_run, study, task.round, released.adapter_sha256, run.roster, task.purpose)
    try:
        content = _content(ledger, member, context, task, replace(part, message=released.masked))
    except SecureSumError as error:
        log.error("Round %d of %s: %s was refused: %s", task.round, task.study_run, task.leg, error)
        return without_content(task, Status.REFUSED_SURVIVORS)
    return replace(without_content(task, Status.TRAINED), content=content)


def _released(ledger: Ledger, task: LegTask) -> Released | None:
    """Return what this node gave to a sum; None if that was nothing."""
    if task.purpose == EVALUATION:
        counted = released_evaluation(ledger, task.study_run, task.round)
        evaluated = None if counted is None else read_evaluation(counted)
        if evaluated is None or evaluated.status is not Status.EVALUATED:
            return None
        return Released(evaluated.adapter_sha256, evaluated.masked)
    written = ledger.answer(task.study_run, task.round)
    trained = None if written is None else read_reply(written)
    if trained is None or trained.status is not Status.TRAINED:
        return None
    return Released(trained.base_sha256, trained.masked)


def _content(ledger: Ledger, member: Member, context: RoundContext, task: LegTask, masked: MaskedRow) -> bytes:
    signed = _signed(ledger.state.run(context.run), context)
    if task.leg == "opening":
        return open_sum(member, context, task.content, masked, signed)
    row, content = sign_survivors(member, context, task.content, masked, signed)
    if signed is None:
        sha256 = row.survivors_sha256
        plain = {"run": row.run, "round": row.round, "purpose": row.purpose, "sha256": sha256}
        ledger.enter({"kind": "survivors", **plain})
    return content


def _signed(run: ApprovedRun, context: RoundContext) -> SurvivorsRow | None:
    sha256 = run.survivors.get((context.round, context.purpose))
    return None if sha256 is None else SurvivorsRow(context.run, context.round, context.purpose, sha256)


def _member(files: SumFiles, run: str, roster_sha256: str) -> Member | None:
    identity, roster = files.identity(run), files.roster(run)
    if identity is None or roster is None or roster.sha256 != roster_sha256:
        return None
    return Member(identity.entry.name, identity.keys, roster)
