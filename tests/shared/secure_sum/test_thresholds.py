"""The public numbers of a run, and a node's own rule."""

import pytest

from shared.secure_sum.refusals import Refusal
from shared.secure_sum.thresholds import OwnPolicy, Thresholds
from tests.support.secure_sums import refused

PEERS = ("p1", "p2", "p3")
PINNED = dict.fromkeys(PEERS, "")


@pytest.mark.parametrize(
    ("nodes", "threshold", "colluders"),
    [(3, 3, 1), (4, 3, 1), (5, 4, 1), (6, 5, 1), (10, 8, 1), (11, 9, 1), (20, 16, 2), (30, 24, 3), (100, 80, 10)],
)
def test_the_default_leaves_one_of_few_out_and_a_fifth_of_many(nodes: int, threshold: int, colluders: int) -> None:
    assert Thresholds.by_default(nodes) == Thresholds(nodes, threshold, colluders)


def test_every_default_fits_and_is_taken_by_a_node_that_pinned_all_peers() -> None:
    for nodes in range(3, 101):
        peers = [f"p{number}" for number in range(nodes - 1)]
        thresholds = Thresholds.by_default(nodes)
        OwnPolicy(dict.fromkeys(peers, ""), thresholds.colluders).check(thresholds, peers)


@pytest.mark.guarantee(
    "numbers by which one colluder is too many, or two sets of survivors could be opened, do not exist."
)
@pytest.mark.parametrize(
    "numbers", [(2, 2, 1), (101, 80, 10), (4, 5, 1), (4, 3, 0), (4, 2, 1), (5, 3, 1), (6, 4, 2), (3, 2, 1), (4, 4, 3)]
)
def test_numbers_that_do_not_fit_are_refused(numbers: tuple[int, int, int]) -> None:
    refused(Refusal.NUMBERS, lambda: Thresholds(*numbers))


@pytest.mark.parametrize(
    ("policy", "pins", "feared"),
    [
        (1, PINNED, 1),
        (0, PINNED, 1),
        (-1, PINNED, 1),
        (2, PINNED, 2),
        (1, {"p1": "", "p2": ""}, 2),
        (1, {}, 4),
        (1, {"p1": "A", "p2": "A", "p3": ""}, 2),
        (2, {"p1": "A", "p2": "A", "p3": ""}, 3),
        (1, {"p1": "A", "p2": "A", "p3": "A"}, 3),
        (1, {**PINNED, "somebody else": ""}, 1),
    ],
)
def test_a_node_fears_peers_without_a_pin_and_the_largest_owners(
    policy: int, pins: dict[str, str], feared: int
) -> None:
    assert OwnPolicy(pins, policy).feared(PEERS) == feared


@pytest.mark.guarantee("a node takes part only if h <= t - c_own, 2 t > n + c_own and n >= smallest_cohort >= 3.")
def test_a_node_refuses_by_the_rule_that_does_not_hold() -> None:
    four = Thresholds(4, 3, 1)
    OwnPolicy(PINNED).check(four, PEERS)
    refused(Refusal.SMALL_COHORT, lambda: OwnPolicy(PINNED, smallest_cohort=5).check(four, PEERS))
    refused(Refusal.TOO_MANY_COLLUDERS, lambda: OwnPolicy({"p1": "", "p2": ""}).check(four, PEERS))
    refused(Refusal.TOO_MANY_COLLUDERS, lambda: OwnPolicy(dict.fromkeys(PEERS, "A")).check(four, PEERS))
    OwnPolicy(PINNED, smallest_cohort=0).check(Thresholds(3, 3, 1), PEERS[:2])


def test_a_node_checks_each_rule_for_itself_against_its_own_count() -> None:
    for nodes in range(3, 9):
        for threshold in range(1, nodes + 1):
            for colluders in range(1, nodes):
                if threshold - colluders < 2 or 2 * threshold <= nodes + colluders:
                    continue
                thresholds, peers = Thresholds(nodes, threshold, colluders), [str(peer) for peer in range(nodes - 1)]
                for policy in range(1, nodes):
                    holds = threshold - colluders <= threshold - policy and 2 * threshold > nodes + policy
                    try:
                        OwnPolicy(dict.fromkeys(peers, ""), policy).check(thresholds, peers)
                    except Exception:
                        assert not holds
                    else:
                        assert holds
