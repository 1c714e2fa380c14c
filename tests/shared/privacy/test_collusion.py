"""What operators read of shared noise: both figures beside each other, and words where a figure would mislead."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.privacy.accounting import epsilon_if_colluding
from shared.privacy.collusion import collusion, curve, possible
from shared.privacy.in_words import if_all_collude
from shared.privacy.releases import NoisyCounts, SharedCounts, SharedGaussian, from_dict, to_dict
from shared.study.declaration import Study

DELTA = 1e-5
RELEASE = SharedGaussian(1.4387, 0.1, 48)


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (5.6507, "epsilon 5.66"),
        (10.0, "epsilon 10.00"),
        (10.01, "practically no protection: epsilon 11"),
        (438.4, "practically no protection: epsilon 439"),
        (12345.6, "practically no protection: epsilon 12,346"),
    ],
)
def test_above_ten_it_is_said_in_words_and_no_figure_is_rounded_down(epsilon: float, words: str) -> None:
    assert if_all_collude(epsilon) == words


def test_the_promise_names_how_many_may_collude_and_what_is_left_otherwise() -> None:
    few, many = (collusion(RELEASE.with_nodes(*sizes), DELTA).in_words for sizes in ((4, 3, 1), (36, 30, 2)))
    assert few == (
        "With 4 nodes, of which 3 have to be in every sum, epsilon 3 holds while at most 1 other node and the server "
        "pool what they know; if all others do, epsilon 5.66."
    )
    assert "at most 2 other nodes" in many and many.endswith(
        "if all others do, practically no protection: epsilon 439."
    )


def test_before_a_roster_the_promise_is_shown_by_the_number_of_nodes(make_study: Callable[..., Study]) -> None:
    def study(**federation: Any) -> Study:
        declared = {"rounds": 48, "secure_sum": "shared", "typical_size": 50, "quorum": 4} | federation
        return make_study(federation=declared, training={"local_steps": 1})

    promises = possible(study(), delta=DELTA)
    assert [promise.sizes.nodes for promise in promises] == [4, 10, 30, 100]
    left = [promise.epsilon_if_all_collude for promise in promises]
    assert left == sorted(left) and all(promise.epsilon == pytest.approx(3.0, abs=0.01) for promise in promises)
    fixed = possible(study(threshold=8, colluders=3), delta=DELTA)
    assert [promise.sizes.nodes for promise in fixed] == [10], "eight of four or of a hundred could not be promised"
    assert possible(make_study(), delta=DELTA) == []


def test_the_curve_goes_from_what_the_run_allows_for_to_all_others() -> None:
    release = RELEASE.with_nodes(30, 24, 3)
    points = curve(release, DELTA)
    assert len(points) == 6 and points[0][0] == 3 and points[-1] == (29, epsilon_if_colluding([release], DELTA))
    assert [epsilon for _, epsilon in points] == sorted(epsilon for _, epsilon in points)
    assert [number for number, _ in curve(RELEASE.with_nodes(4, 3, 1), DELTA)] == [1, 2, 3]


def test_counts_that_share_their_noise_are_the_larger_side_where_they_cost_more() -> None:
    trained, cheap, dear = RELEASE.with_nodes(10, 8, 1), SharedCounts(20.0, 1.0, 2), SharedCounts(0.9, 1.0, 2)
    assert collusion(trained, DELTA, cheap).epsilon == pytest.approx(collusion(trained, DELTA).epsilon, rel=1e-3)
    assert collusion(trained, DELTA, dear).epsilon > 1.5 * collusion(trained, DELTA).epsilon
    more = collusion(trained, DELTA, dear)
    assert more.epsilon_if_all_collude > collusion(trained, DELTA).epsilon_if_all_collude
    assert collusion(trained, DELTA, dear, both_sides=True).epsilon > more.epsilon
    assert curve(trained, DELTA, dear)[-1][1] == more.epsilon_if_all_collude
    own = collusion(trained, DELTA, NoisyCounts(0.9, 2))
    assert own.epsilon_if_all_collude < more.epsilon_if_all_collude, "noise of one's own is nobody else's to take"


def test_counts_are_over_all_units_and_are_read_back() -> None:
    for counts in (SharedCounts(2.0, 1.0, 1), SharedCounts(2.0, 1.0, 3).with_nodes(4, 3, 1)):
        assert from_dict(to_dict(counts)) == counts and type(from_dict(to_dict(counts))) is SharedCounts
    assert SharedCounts(2.0, 1.0, 1).with_nodes(4, 3, 1).own_scale == pytest.approx(2.0 * 2**24 / 2**0.5)
    with pytest.raises(SettingsError, match="all held-out units"):
        SharedCounts(2.0, 0.5, 1)
