"""The reference without privacy: a private site's steps without their noise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client.vault.training.round_trainer import RoundTrainer
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.adapted_model.model import build
from shared.privacy.noise_schedule import plan
from shared.protocol.messages import TrainTask, Vector
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from simulations.sites.without_privacy import SiteWithoutPrivacy


def seeded(number: int) -> SeededRandomnessForSimulation:
    return SeededRandomnessForSimulation(1, "arm", number)


def reference(study: Study, records: Any, *, unclipped: bool = False) -> Vector:
    model = build(study)
    activations = FrozenActivations(model, records, torch.device("cpu"))
    site = SiteWithoutPrivacy(study, model, activations, declared_size=40, randomness=seeded, unclipped=unclipped)
    return site.train(TrainTask(study.sha256, "run", 1, np.zeros(model.layout.length, np.float32))).update


def private(study: Study, records: Any) -> Vector:
    model = build(study)
    site = RoundTrainer(study, model, records, declared_size=40, randomness=seeded)
    return site.train(TrainTask(study.sha256, "run", 1, np.zeros(model.layout.length, np.float32))).update


@pytest.mark.parametrize("adapter", [{"layers": "last:1"}, {"method": "head-only"}])
def test_a_private_site_is_as_far_from_its_reference_as_its_noise_is_large(
    make_study: Callable[..., Study], make_records: Any, adapter: dict[str, str]
) -> None:
    """Were its batches, its rates or the length of its gradients others, a part would stay however small the noise."""
    records, distances = make_records(40), []
    for epsilon in (1.0, 10.0, 100.0):
        study = make_study(adapter=adapter, privacy={"epsilon": epsilon, "sampling_rate": 0.5})
        ours = reference(study, records)
        sigma = plan(study.privacy, steps=study.total_steps).noise_multiplier
        distances.append(float(np.linalg.norm(private(study, records) - ours) / np.linalg.norm(ours)) / sigma)
    assert max(distances) < 1.3 * min(distances)


def test_the_reference_itself_has_no_noise(make_study: Callable[..., Study], make_records: Any) -> None:
    loud, quiet = (make_study(privacy={"epsilon": epsilon, "sampling_rate": 0.5}) for epsilon in (0.5, 50.0))
    np.testing.assert_array_equal(reference(loud, make_records(40)), reference(quiet, make_records(40)))


def test_unclipped_gradients_keep_their_length(make_study: Callable[..., Study], make_records: Any) -> None:
    """With equal rates, what is scaled to one length moves by another amount than what is not."""
    study = make_study(adapter={"method": "head-only"}, privacy={"sampling_rate": 0.5})
    scaled, plain = (reference(study, make_records(40), unclipped=unclipped) for unclipped in (False, True))
    assert np.isfinite(plain).all() and not np.allclose(scaled, plain, rtol=0.05)


def test_a_model_that_has_converged_may_stand_still(
    make_study: Callable[..., Study], make_records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.vault.training.trainer.PrivateTrainer._step", lambda *_: None)
    assert not reference(make_study(), make_records(40)).any()
