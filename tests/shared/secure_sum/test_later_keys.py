"""What somebody opens who reads a node's run keys after the fact: all its own vectors, and nobody else's."""

import numpy as np
import pytest

from shared.secure_sum.boxes import Address, unseal
from shared.secure_sum.context import RoundContext
from shared.secure_sum.masks import Vector, add_pair_masks, own_seed, pair_seed, stream
from shared.secure_sum.messages import MaskedVector
from shared.secure_sum.node import Member
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.shares import combine, weights
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Sum

FOUR = Thresholds.by_default(4)


def opened_with(keys_of: Member, message: bytes, context: RoundContext) -> Vector:
    """Open a recorded vector with the run keys of its sender, or fail."""
    masked, me = MaskedVector.from_bytes(message), keys_of
    places = me.roster.positions
    shares = {}
    for holder in me.roster.names:
        if holder not in (me.name, masked.name):
            address = Address(context, masked.name, holder, masked.commitment)
            shares[places[holder]] = unseal(masked.dealt[places[holder] - 1].box, me.secrets[holder], address)
    own = combine(shares, weights(tuple(shares)))
    total = masked.values - stream(own_seed(own, context, masked.name), len(masked.values))
    seeds = {peer: pair_seed(secret, context, me.name, peer) for peer, secret in me.secrets.items()}
    add_pair_masks(total, masked.name, seeds, times=-1)
    return total.view(np.int64)


@pytest.mark.parametrize("number", [1, 7])
def test_run_keys_open_their_nodes_recorded_vectors_of_every_round(number: int) -> None:
    """It counts among the colluders of rounds that were over long before: there is no forward secrecy in a run."""
    run = Sum(FOUR, round=number)
    run.send()
    for name, node in run.nodes.items():
        assert node.masked is not None
        found = opened_with(node.member, node.masked.message, run.context())
        np.testing.assert_array_equal(found, run.values[name])


def test_run_keys_open_no_box_between_two_other_nodes() -> None:
    run = Sum(FOUR)
    run.send()
    taken, other, *_ = run.nodes.values()
    assert other.masked is not None
    with pytest.raises(SecureSumError):
        opened_with(taken.member, other.masked.message, run.context())
