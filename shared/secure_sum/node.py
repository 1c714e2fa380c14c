"""A node's part of a secure sum, as functions from what it has written down to what it writes down and sends.

Rules, each for one run, round and purpose, whatever the server sends:
1. One roster a run: `take_roster`. Write its digest down; another roster is refused for ever.
2. One vector, one mask: `mask_vector`. Write the row down before its message leaves. Asked again, a node sends
   `resend`: the same bytes, for ever. The own mask and its polynomial are in no row.
3. One set of survivors: `sign_survivors`. A node signs a set with itself and its own message in it, of as many nodes as
   its smallest cohort or more. Write the row down before the reply leaves.
4. An opening only for the set that it signed, and that t nodes signed: `open_sum`. The reply has shares of survivors'
   own masks and pair keys with the missing, never both for one node. It is no row: asked again, the reply is the same.
A vector exists only with its noise in it: a node that refuses or fails sends no vector, and never one of zeros.
Ask one thing at a time: between reading a row and writing it down, nothing else may answer for that round.
Nothing here checks a secret value, so nothing here fails because of one.

Guarantee: every opened sum holds the vectors of at least t - c honest nodes, whatever a server shows them.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from shared.secure_sum.boxes import BOX_BYTES, Address, seal, unseal
from shared.secure_sum.context import DIGEST_BYTES, Purpose, RoundContext, purpose_of
from shared.secure_sum.encoding import Kind, Reader, head, joined, malformed
from shared.secure_sum.entries import Entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.masks import MOST_VALUES, Vector, committed, fresh, mask, own_seed, pair_seed
from shared.secure_sum.messages import (
    MOST_MASKED,
    Dealt,
    Held,
    MaskedVector,
    OpeningQuestion,
    OpeningReply,
    SurvivorsQuestion,
    SurvivorsReply,
)
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.roster import Numbers, Roster, check_roster
from shared.secure_sum.shares import SHARE_BYTES, split
from shared.secure_sum.survivors import Survivors
from shared.secure_sum.thresholds import FEWEST_NODES, OwnPolicy


@dataclass(frozen=True)
class Member:
    """A node in a run whose roster it took: made by `take_roster`."""

    name: str
    keys: RunKeys
    roster: Roster
    smallest_cohort: int = FEWEST_NODES
    """Fewest nodes in a sum that this node signs and opens; the threshold asks for some as well."""

    @cached_property
    def secrets(self) -> Mapping[str, bytes]:
        """Secrets with each peer, by name."""
        return {peer.name: self.keys.secret_with(peer.keys.exchange) for peer in self.roster.peers(self.name)}

    @property
    def threshold(self) -> int:
        """t of the run."""
        return self.roster.numbers.thresholds.threshold


@dataclass(frozen=True)
class MaskedRow:
    """What a node keeps of the one vector it sent. Secret: the share is of its own mask."""

    run: str
    round: int
    purpose: Purpose
    context: bytes
    """Digest of the context; another adapter or roster for the same round has another."""
    message: bytes = field(repr=False)
    """What is sent, and sent again."""
    own_share: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the row, for the vault's own storage."""
        fields = (self.run, self.round, self.purpose, self.context, self.own_share, self.message)
        return head(Kind.MASKED_ROW) + joined(*fields)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.MASKED_ROW, most_bytes=MOST_MASKED + 4096)
        run, number, purpose = reader.text(), reader.number(), purpose_of(reader.text())
        context, share = reader.fixed(DIGEST_BYTES), reader.fixed(SHARE_BYTES)
        row = cls(run, number, purpose, context, reader.field(MOST_MASKED), share)
        reader.end()
        return row


class SurvivorsRow(NamedTuple):
    """What a node keeps of the one set that it signed. No secret."""

    run: str
    round: int
    purpose: Purpose
    survivors_sha256: str


def take_roster(
    roster: Roster,
    me: Entry,
    keys: RunKeys,
    expected: Numbers,
    policy: OwnPolicy,
    accepted: str | None,
    *,
    run: str,
    study_sha256: str,
    vouched: Callable[[Entry], bool],
) -> Member:
    """Take part in a run under a roster; write `roster.sha256` down before anything is sent under it.

    Guarantee: a node takes one roster a run.

    Args:
        roster: of anybody's making.
        me: this node's own entry, as it was signed.
        keys: this node's own.
        expected: the numbers that follow from the study for so many nodes.
        policy: of this node's operator.
        accepted: the roster's digest that was written down for this run, if there is one.
        run: that the operator approved.
        study_sha256: of its study.
        vouched: true for an entry whose certificate key the federation's authority has certified.

    Raises:
        SecureSumError: with the reason as its code.
    """
    check_roster(roster, me, keys, expected, run=run, study_sha256=study_sha256, vouched=vouched)
    policy.check(roster.numbers.thresholds, (peer.fingerprint for peer in roster.peers(me.name)))
    if accepted not in (None, roster.sha256):
        raise SecureSumError(Refusal.SECOND_ROSTER)
    return Member(me.name, keys, roster, policy.smallest_cohort)


def mask_vector(member: Member, context: RoundContext, values: Vector, recorded: MaskedRow | None) -> MaskedRow:
    """Hide a vector and deal shares of its own mask; write the row down before its message leaves.

    Guarantee: one run, round and purpose has one vector and one mask.

    Args:
        member: of this node.
        context: of this round.
        values: the vector, noise included.
        recorded: the row of this run, round and purpose, if there is one.

    Raises:
        SecureSumError: there was a vector before, or the context is of another run or roster.
    """
    _check_own(member, context)
    if recorded is not None:
        raise SecureSumError(Refusal.SECOND_VECTOR)
    if values.dtype != np.int64 or values.ndim != 1 or len(values) > MOST_VALUES:
        raise malformed(f"a vector of at most {MOST_VALUES} integers of 64 bits")
    own, me, secrets = fresh(), member.name, member.secrets
    commitment = committed(own, context, me)
    shares = split(own, member.threshold, len(member.roster.names))
    dealt = []
    for holder, share in zip(member.roster.names, shares, strict=True):
        address = Address(context, me, holder, commitment)
        box = bytes(BOX_BYTES) if holder == me else seal(share, secrets[holder], address)
        dealt.append(Dealt(share_digest(share, context, me, holder), box))
    seeds = {peer: pair_seed(secret, context, me, peer) for peer, secret in secrets.items()}
    masked = mask(values, me, own_seed(own, context, me), seeds)
    message = MaskedVector(context.digest, me, commitment, tuple(dealt), masked).to_bytes()
    own_share = shares[member.roster.positions[me] - 1]
    return MaskedRow(context.run, context.round, context.purpose, context.digest, message, own_share)


def resend(context: RoundContext, recorded: MaskedRow) -> bytes:
    """Return the message of a vector that was masked before, for the same context.

    Raises:
        SecureSumError: the round was asked with another adapter, roster or study.
    """
    _check_row(context, recorded)
    return recorded.message


def sign_survivors(
    member: Member, context: RoundContext, encoded: bytes, masked: MaskedRow | None, signed: SurvivorsRow | None
) -> tuple[SurvivorsRow, bytes]:
    """Sign the set of a question; write the row down before the reply leaves.

    Guarantee: a node signs one set of survivors a run, round and purpose, and only with itself and its own message in
    it.

    Guarantee: a node signs and opens no set of fewer nodes than its smallest cohort.

    Args:
        member: of this node.
        context: of this round.
        encoded: the server's `SurvivorsQuestion`.
        masked: the row of this node's vector, if there is one.
        signed: the row of this run, round and purpose, if there is one.

    Returns:
        The row, and the `SurvivorsReply`; the same ones if the same set is asked again.

    Raises:
        SecureSumError: with the rule that the question breaks as its code.
    """
    question = SurvivorsQuestion.from_bytes(encoded)
    masked = _checked(member, context, masked, question.context)
    survivors, me = question.survivors, member.name
    survivors.check(member.roster)
    _check_cohort(member, survivors)
    if me not in survivors.names:
        raise SecureSumError(Refusal.SURVIVORS_WITHOUT_ME)
    if survivors.digests[me] != hashlib.sha256(masked.message).digest():
        raise SecureSumError(Refusal.SURVIVORS_CHANGED_ME)
    row = SurvivorsRow(context.run, context.round, context.purpose, survivors.sha256(context))
    if signed not in (None, row):
        raise SecureSumError(Refusal.SECOND_SURVIVORS)
    return row, SurvivorsReply(context.digest, me, survivors.sign(member.keys, context)).to_bytes()


def open_sum(
    member: Member, context: RoundContext, encoded: bytes, masked: MaskedRow | None, signed: SurvivorsRow | None
) -> bytes:
    """Give this node's part of the opening of the set that it signed.

    Guarantee: a node opens only the set that it signed and that t nodes of its roster signed.

    Guarantee: of one node, a reply holds a share of its own mask or the key of its pair mask, never both.

    Args:
        member: of this node.
        context: of this round.
        encoded: the server's `OpeningQuestion`.
        masked: the row of this node's vector, if there is one.
        signed: the set that it signed, as `sign_survivors` returned it.

    Returns:
        The `OpeningReply`. A box that does not hold what its dealer announced is reported for that dealer alone.

    Raises:
        SecureSumError: with the rule that the question breaks as its code.
    """
    question = OpeningQuestion.from_bytes(encoded)
    masked = _checked(member, context, masked, question.context)
    if signed is None:
        raise SecureSumError(Refusal.NOT_SIGNED)
    row = SurvivorsRow(context.run, context.round, context.purpose, question.survivors.sha256(context))
    if row != signed:
        raise SecureSumError(Refusal.SECOND_SURVIVORS)
    _check_cohort(member, question.survivors)
    _check_signatures(member, context, question)
    survivors = question.survivors.names
    shares = tuple(
        masked.own_share if dealer == member.name else _share(member, context, dealer, held)
        for dealer, held in zip(survivors, question.held, strict=True)
    )
    missing = (name for name in member.roster.names if name not in question.survivors.digests)
    seeds = tuple(pair_seed(member.secrets[name], context, member.name, name) for name in missing)
    return OpeningReply(context.digest, member.name, shares, seeds).to_bytes()


def share_digest(share: bytes, context: RoundContext, dealer: str, holder: str) -> bytes:
    """Return what a dealer announces of a share, by which a holder that lies is named."""
    return context.hashed("share", dealer, holder, share)


def _share(member: Member, context: RoundContext, dealer: str, held: Held) -> bytes | None:
    try:
        share = unseal(held.box, member.secrets[dealer], Address(context, dealer, member.name, held.commitment))
    except SecureSumError:
        return None
    return share if share_digest(share, context, dealer, member.name) == held.share_digest else None


def _check_own(member: Member, context: RoundContext) -> None:
    roster = member.roster
    if (context.run, context.study_sha256, context.roster_sha256) != (roster.run, roster.study_sha256, roster.sha256):
        raise SecureSumError(Refusal.OTHER_CONTEXT)


def _check_row(context: RoundContext, masked: MaskedRow) -> None:
    if (masked.run, masked.round, masked.purpose) != (context.run, context.round, context.purpose):
        raise SecureSumError(Refusal.OTHER_CONTEXT)
    if masked.context != context.digest:
        raise SecureSumError(Refusal.SECOND_VECTOR)


def _checked(member: Member, context: RoundContext, masked: MaskedRow | None, asked: bytes) -> MaskedRow:
    """Return this node's row, if a question is about it."""
    _check_own(member, context)
    if masked is None:
        raise SecureSumError(Refusal.NO_VECTOR)
    _check_row(context, masked)
    if asked != context.digest:
        raise SecureSumError(Refusal.OTHER_CONTEXT)
    return masked


def _check_cohort(member: Member, survivors: Survivors) -> None:
    """Refuse to open a sum of too few: the operator may have asked for more since the set was signed."""
    if len(survivors.names) < member.smallest_cohort:
        raise SecureSumError(Refusal.SMALL_COHORT, f"{len(survivors.names)} survivors")


def _check_signatures(member: Member, context: RoundContext, question: OpeningQuestion) -> None:
    """Refuse fewer than t signers; this node's own row counts as its signature."""
    for name, signature in question.signatures.items():
        if not question.survivors.is_signed(signature, member.roster.entry(name).keys.signing, context):
            raise SecureSumError(Refusal.SIGNATURE)
    if len({member.name, *question.signatures}) < member.threshold:
        raise SecureSumError(Refusal.SIGNATURES_TOO_FEW)
