"""The noise of an evaluation is that of its epsilon, by the ledger's gate and by an independent library."""

import math
from collections.abc import Callable

import dp_accounting as dp
import pytest
from dp_accounting.rdp import RdpAccountant

from shared.errors import SettingsError
from shared.privacy.accounting import WHOLE_ORDERS, epsilon_rdp
from shared.privacy.releases import from_dict, times, to_dict
from shared.private_evaluation.cells import STEPS
from shared.private_evaluation.noise import evaluation_release, noise_scale, sigma, summed_noise
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes

Make = Callable[..., Study]


@pytest.mark.parametrize(("epsilon", "rounds"), [(0.5, [1, 2]), (1.0, []), (3.0, []), (8.0, [2])])
@pytest.mark.guarantee(
    "all evaluations of a run together cost one unit at most evaluation.epsilon at the study's delta."
)
def test_the_noise_is_as_much_as_epsilon_needs_and_no_more(epsilon: float, rounds: list[int], make_study: Make) -> None:
    study = make_study(evaluation={"epsilon": epsilon, "rounds": rounds})
    release = times(evaluation_release(study), len(study.evaluated_after))
    assert epsilon * 0.999 <= epsilon_rdp([release], study.privacy.delta) <= epsilon
    oracle = RdpAccountant()
    oracle.compose(dp.GaussianDpEvent(sigma(study)), release.count)
    assert oracle.get_epsilon(study.privacy.delta) == pytest.approx(epsilon, rel=0.01)


def test_k_evaluations_cost_sqrt_k_as_much_noise(make_study: Make) -> None:
    once, thrice = (make_study(evaluation={"epsilon": 1.0, "rounds": rounds}) for rounds in ([], [1, 2]))
    assert sigma(thrice) == pytest.approx(math.sqrt(3) * sigma(once), rel=1e-3)


def test_a_release_says_its_grid_and_is_read_back(make_study: Make) -> None:
    release = evaluation_release(make_study(evaluation={"epsilon": 1.0}))
    assert from_dict(to_dict(release)) == release and release.grid * STEPS == 1
    assert to_dict(release)["mechanism"] == "discrete-gaussian-counts"
    assert noise_scale(release) == release.noise_multiplier * STEPS


def test_a_study_without_an_evaluation_has_no_noise_of_one(make_study: Make) -> None:
    with pytest.raises(SettingsError, match="one without"):
        sigma(make_study())


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_shared_noise_is_that_of_the_honest_nodes_by_an_independent_library(epsilon: float, make_study: Make) -> None:
    """The oracle knows no shared noise: it composes what h honest nodes add together, at whole orders."""
    shared = make_study(
        federation={"secure_sum": "shared", "typical_size": 60},
        training={"local_steps": 1},
        evaluation={"epsilon": epsilon, "rounds": [1]},
    )
    sizes = sum_sizes(10, shared.federation)
    together = summed_noise(shared, sizes.honest, sizes)
    oracle = RdpAccountant(WHOLE_ORDERS)
    oracle.compose(dp.SelfComposedDpEvent(dp.GaussianDpEvent(together), 2))
    assert oracle.get_epsilon(shared.privacy.delta) == pytest.approx(epsilon, rel=0.01)
    assert together == pytest.approx(sigma(shared))
    assert summed_noise(shared, 10, sizes) == pytest.approx(sigma(shared) * math.sqrt(10 / sizes.honest))
    own = make_study(federation={"secure_sum": "masked"}, evaluation={"epsilon": epsilon, "rounds": [1]})
    assert summed_noise(own, 10, sizes) == pytest.approx(sigma(own) * math.sqrt(10))
    with pytest.raises(SettingsError, match="without a roster"):
        summed_noise(shared, 10)
