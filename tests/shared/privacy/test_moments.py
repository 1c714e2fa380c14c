"""Moments are those of Opacus, to the last bit."""

import math
import time

import numpy as np
import pytest
from opacus.accountants.analysis import rdp

from shared.privacy.accounting import ORDERS
from shared.privacy.moments import log_moment


@pytest.mark.guarantee("it is the figure of Opacus, to the last bit.")
@pytest.mark.parametrize("sampling_rate", [1e-6, 0.01, 0.1234567, 0.5, 0.999])
def test_each_moment_is_that_of_opacus_to_the_last_bit(sampling_rate: float) -> None:
    for sigma in (0.3, 1.0, 1.8803, 50.123):
        theirs = [rdp._compute_log_a(sampling_rate, sigma, order) for order in ORDERS]
        assert [log_moment(order, sampling_rate, sigma) for order in ORDERS] == theirs


def test_a_second_sigma_takes_a_fraction_of_the_time() -> None:
    log_moments = [log_moment(order, 0.1, 1.0) for order in ORDERS]
    begun = time.process_time()
    log_moments += [log_moment(order, 0.1, 1.1) for order in ORDERS]
    between = time.process_time()
    np.asarray(rdp.compute_rdp(q=0.1, noise_multiplier=1.1, steps=1, orders=ORDERS))
    assert all(map(math.isfinite, log_moments)) and between - begun < time.process_time() - between
