"""What a server with colluders sees of a sum whose nodes share the noise, attacked through the real session."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from client.vault.training.randomness import Randomness
from shared.secure_sum.thresholds import Thresholds
from simulations.audit.audit import Audit
from simulations.audit.audited_site import Claim
from simulations.audit.controls import masks_of_zeros, masks_used_twice, one_share_missing
from simulations.audit.summed_sites import FEW, MANY, View, audit_sum
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

CLAIM = Claim(3.0, sampling_rate=1.0, rounds=2, canaries=3000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


def seeded(draw: int) -> Randomness:
    """Noise of each node and round, so that no test fails by chance."""
    return SeededRandomnessForSimulation(5, draw)


def attacked(folder: Path, sizes: Thresholds, view: View, fault: AbstractContextManager[None] | None = None) -> Audit:
    with fault or nullcontext():
        return audit_sum(CLAIM, folder, seed=1, sizes=sizes, view=view, randomness=seeded)


def test_a_server_with_colluders_sees_no_more_of_a_sum_than_is_promised(folder: Path) -> None:
    """Of a sum that holds the colluders' share as well: without it there is exactly the noise that is accounted for."""
    report = attacked(folder, FEW, "sum")
    assert report.verdict == "passes" and report.noise == pytest.approx(1.0, abs=0.06)
    # two-sided: canaries that were not summed would show nothing
    assert report.epsilon_at_least == pytest.approx(report.power, rel=0.4)


def test_a_masked_vector_by_itself_shows_nothing(folder: Path) -> None:
    assert attacked(folder, FEW, "message").epsilon_at_least < 0.3


FAULTS: dict[str, tuple[Thresholds, View, Callable[[], AbstractContextManager[None]]]] = {
    "one share missing": (FEW, "sum", one_share_missing),
    "masks of zeros": (MANY, "message", masks_of_zeros),
    "masks used twice": (MANY, "difference", masks_used_twice),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_secure_sum_is_caught(folder: Path, fault: str) -> None:
    sizes, view, put_in = FAULTS[fault]
    assert attacked(folder, sizes, view, put_in()).verdict == "refuted"
