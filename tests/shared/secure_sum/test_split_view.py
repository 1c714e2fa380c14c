"""A lying server with c colluders shows honest nodes different survivors, and opens what it can: exhaustively, n <= 6.

The attacker knows all messages, all colluders' keys and rows, and whatever honest nodes answer to what it asks. It
tries every set of honest vectors, and opens it by arithmetic, not by the session's own code.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations, product

import numpy as np
import pytest

from shared.secure_sum.boxes import Address, unseal
from shared.secure_sum.masks import Masked, Vector, add_pair_masks, own_seed, pair_seed, stream
from shared.secure_sum.messages import (
    Held,
    MaskedVector,
    OpeningQuestion,
    OpeningReply,
    SurvivorsQuestion,
    SurvivorsReply,
)
from shared.secure_sum.node import SurvivorsRow, open_sum, sign_survivors
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.shares import combine, weights
from shared.secure_sum.survivors import Survivors
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Sum

Names = tuple[str, ...]
CASES = [(3, 3, 1), (4, 3, 1), (4, 4, 2), (5, 4, 1), (5, 4, 2), (6, 4, 1), (6, 5, 3)]


def subsets(names: Names, fewest: int) -> Iterator[Names]:
    return chain.from_iterable(combinations(names, size) for size in range(fewest, len(names) + 1))


@dataclass(frozen=True, eq=False)
class Attack:
    """A round in which all sent a vector, to a server that lies; the last c nodes collude with it."""

    run: Sum

    @property
    def honest(self) -> Names:
        return self.run.names[: -self.run.thresholds.colluders]

    @property
    def colluders(self) -> Names:
        return self.run.names[-self.run.thresholds.colluders :]

    def sets(self) -> Iterator[Names]:
        return subsets(self.run.names, 1)

    @cache  # noqa: B019 - lives as long as its test
    def message(self, name: str) -> MaskedVector:
        row = self.run.nodes[name].masked
        assert row is not None
        return MaskedVector.from_bytes(row.message)

    @cache  # noqa: B019
    def survivors(self, names: Names) -> Survivors:
        rows = {name: self.run.nodes[name].masked for name in names}
        return Survivors.of({name: hashlib.sha256(row.message).digest() for name, row in rows.items() if row})

    @cache  # noqa: B019
    def signature(self, name: str, names: Names) -> tuple[SurvivorsRow, bytes] | None:
        """Ask a node to sign a set; a colluder signs everything."""
        run, survivors = self.run, self.survivors(names)
        node, context = run.nodes[name], run.session.context
        row = SurvivorsRow(context.run, context.round, context.purpose, survivors.sha256(context))
        if name in self.colluders:
            return row, survivors.sign(node.member.keys, context)
        try:
            assert node.masked is not None
            question = SurvivorsQuestion(context.digest, survivors).to_bytes()
            row, reply = sign_survivors(node.member, context, question, node.masked, None)
        except SecureSumError:
            return None
        return row, SurvivorsReply.from_bytes(reply).signature

    def answer(self, name: str, names: Names, signers: Names) -> OpeningReply | None:
        """Ask an honest node that signed a set to open it, with the signatures of some."""
        node, context, signed = self.run.nodes[name], self.run.session.context, self.signature(name, names)
        assert signed is not None
        assert node.masked is not None
        signatures = {signer: reply[1] for signer in signers if (reply := self.signature(signer, names))}
        place = self.run.roster.positions[name] - 1
        held = tuple(Held(self.message(dealer).commitment, *self.message(dealer).dealt[place]) for dealer in names)
        question = OpeningQuestion(context.digest, self.survivors(names), signatures, held)
        try:
            return OpeningReply.from_bytes(open_sum(node.member, context, question.to_bytes(), node.masked, signed[0]))
        except SecureSumError as refusal:
            assert refusal.code is Refusal.SIGNATURES_TOO_FEW
            return None

    def shares(self, dealer: str, answers: Mapping[str, tuple[Names, OpeningReply]]) -> dict[int, bytes]:
        """All shares of an own mask that the attacker has: those answered, and the colluders'."""
        positions = self.run.roster.positions
        shares = {positions[colluder]: self.dealt_to(colluder, dealer) for colluder in self.colluders}
        for holder, (names, reply) in answers.items():
            if dealer in names and (share := reply.shares[names.index(dealer)]) is not None:
                shares[positions[holder]] = share
        return shares

    @cache  # noqa: B019
    def dealt_to(self, colluder: str, dealer: str) -> bytes:
        message, place = self.message(dealer), self.run.roster.positions[colluder] - 1
        address = Address(self.run.session.context, dealer, colluder, message.commitment)
        return unseal(message.dealt[place].box, self.run.nodes[colluder].member.secrets[dealer], address)

    def seeds(
        self, name: str, others: Names, answers: Mapping[str, tuple[Names, OpeningReply]]
    ) -> dict[str, bytes] | None:
        """Keys of a node's pair masks with some others; None if the attacker lacks one."""
        context, seeds = self.run.session.context, {}
        for other in others:
            if other in self.colluders:
                seeds[other] = pair_seed(self.run.nodes[other].member.secrets[name], context, name, other)
                continue
            for one, missing in ((name, other), (other, name)):
                names, reply = answers.get(one, ((), None))
                if reply is not None and missing not in names:
                    absent = [absentee for absentee in self.run.names if absentee not in names]
                    seeds[other] = reply.seeds[absent.index(missing)]
        return seeds if len(seeds) == len(others) else None

    def opened(self, target: Names, answers: Mapping[str, tuple[Names, OpeningReply]]) -> Masked | None:
        """The sum of some honest vectors, if what the attacker has opens it."""
        total = np.zeros(self.run.length, np.uint64)
        others = tuple(name for name in self.run.names if name not in target)
        for name in target:
            shares = self.shares(name, answers)
            seeds = self.seeds(name, others, answers)
            if len(shares) < self.run.thresholds.threshold or seeds is None:
                return None
            places = tuple(shares)[: self.run.thresholds.threshold]
            own = combine(shares, weights(places))
            total += self.message(name).values - stream(own_seed(own, self.run.session.context, name), len(total))
            add_pair_masks(total, name, seeds, times=-1)
        return total

    def openings(self, answers: Mapping[str, tuple[Names, OpeningReply]]) -> dict[Names, Vector]:
        """Every set of honest vectors that the attacker opens to its true sum."""
        opened = {target: self.opened(target, answers) for target in subsets(self.honest, 1)}
        return {target: total.view(np.int64) for target, total in opened.items() if total is not None}


def attacked(case: tuple[int, int, int]) -> Attack:
    run = Sum(Thresholds(*case))
    run.send()
    return Attack(run)


@pytest.mark.guarantee(
    "every opened sum holds the vectors of at least t - c honest nodes, whatever a server shows them."
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_opened_sum_holds_fewer_than_t_minus_c_honest_vectors(case: tuple[int, int, int]) -> None:
    attack = attacked(case)
    answering: set[tuple[Names, Names]] = set()
    for names in attack.sets():
        willing = tuple(name for name in attack.honest if attack.signature(name, names) is not None)
        for signers in subsets(willing, 1):
            replies = {name: attack.answer(name, names, (*signers, *attack.colluders)) for name in signers}
            assert len({reply is None for reply in replies.values()}) == 1
            answers = {name: (names, reply) for name, reply in replies.items() if reply is not None}
            if answers:
                answering.add((names, signers))
            for target, total in attack.openings(answers).items():
                assert len(target) >= case[1] - case[2]
                assert target == tuple(name for name in attack.honest if name in names)
                assert np.array_equal(total, attack.run.expected(target))
    assert answering, "the attack reaches an opening"
    for (one, signers), (other, others) in combinations(answering, 2):
        assert one == other or set(signers) & set(others), "two sets were opened by nodes that signed one each"


@pytest.mark.parametrize(("case", "smallest"), [((4, 3, 1), 1), ((5, 4, 1), 2)], ids=str)
def test_without_signed_survivors_the_same_attack_opens_fewer(
    case: tuple[int, int, int], smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.secure_sum.node._check_signatures", lambda *_: None)
    attack = attacked(case)
    views = [[names for names in attack.sets() if attack.signature(name, names)] for name in attack.honest]
    answer = cache(attack.answer)
    sizes = set()
    for shown in product(*views):
        replies = {name: (names, answer(name, names, ())) for name, names in zip(attack.honest, shown, strict=True)}
        answers = {name: (names, reply) for name, (names, reply) in replies.items() if reply is not None}
        sizes |= {len(target) for target in attack.openings(answers)}
    assert min(sizes) == smallest == 2 * case[1] - case[0] - case[2]
    assert smallest < case[1] - case[2]


def test_a_late_vector_stays_closed_though_its_pair_masks_are_revealed() -> None:
    attack = attacked((4, 3, 1))
    late, names = attack.honest[0], attack.run.names[1:]
    signers = tuple(name for name in attack.honest if name in names)
    answers = {}
    for name in signers:
        reply = attack.answer(name, names, (*signers, *attack.colluders))
        assert reply is not None
        answers[name] = names, reply
    assert attack.seeds(late, names, answers) is not None
    assert len(attack.shares(late, answers)) < 3
    assert set(attack.openings(answers)) == {attack.honest[1:]}
