"""Whitening by noisy second moments: what stands out is evened out, what is noise is left alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from shared.adapted_model.whitened_head import WhitenedHead
from shared.adapted_model.whitening import whitener
from shared.errors import SettingsError
from shared.privacy.signal_to_noise import Batch, Steps, moments_edge
from shared.study.declaration import Study

Matrix = NDArray[np.float64]
WIDTH = 24


@pytest.fixture
def features() -> Matrix:
    """Few directions hold most of them (2000, WIDTH), each of length 4."""
    drawn = np.random.default_rng(0).standard_normal((2000, WIDTH)) * 0.8 ** np.arange(WIDTH)
    return 4 * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def noise(deviation: float, seed: int = 1) -> Matrix:
    return np.random.default_rng(seed).normal(0, deviation, (WIDTH, WIDTH))


def moments(features: Matrix) -> Matrix:
    return features.T @ features / len(features) / 16


def test_without_noise_features_vary_alike_in_every_direction_and_keep_their_length(features: Matrix) -> None:
    white = features @ whitener(moments(features))
    before, after = (np.linalg.eigvalsh(each.T @ each / len(each)) for each in (features, white))
    assert before[-1] > 100 * before[8] and after[-1] < 1.5 * after[8]
    assert np.square(white).sum(1).mean() == pytest.approx(16)


def test_only_directions_that_stand_out_of_the_noise_are_shortened(features: Matrix) -> None:
    exact = moments(features)
    top = np.linalg.eigh(exact)[1][:, -1]
    for seed in range(20):
        found = whitener(exact + noise(0.01, seed))
        scales = np.linalg.eigvalsh(found)
        alike = np.isclose(scales, scales[-1], rtol=1e-6)  # what is within the noise is left as it is beside the rest
        assert 15 < alike.sum() < 21
        white = features @ found
        assert 0.6 * 16 < np.square(white).sum(1).mean() < 2 * 16
        assert np.square(white @ top).mean() < 0.4 * np.square(features @ top).mean()


@pytest.mark.parametrize("nothing", [np.zeros((WIDTH, WIDTH)), -np.eye(WIDTH)])
def test_nothing_measured_changes_nothing(nothing: Matrix) -> None:
    assert np.array_equal(whitener(nothing), np.eye(WIDTH))


def test_through_far_too_much_noise_features_nearly_stay_as_they_are(features: Matrix) -> None:
    for seed in range(20):
        scales = np.linalg.eigvalsh(whitener(moments(features) + noise(3.0, seed)))
        assert 0.3 < scales[0] <= scales[-1] < 3
    assert np.allclose(whitener(7 * moments(features)), whitener(moments(features)))


def test_the_edge_that_a_plan_tells_is_that_of_the_noise_on_measured_moments() -> None:
    width, steps = 200, Steps([1.0] * 6, 1.5, 1.0, Batch(450.0, 450.0))
    drawn = np.random.default_rng(3).normal(0, 1.5, (6, width, width)).sum(0) / 450  # six noisy sums over L
    edge = np.linalg.eigvalsh((drawn + drawn.T) / 2)[-1] / 6  # signals of six steps have the sum 6 as their trace
    assert edge == pytest.approx(moments_edge(steps, width), rel=0.05)


def test_losses_have_minus_the_second_moments_as_gradients_and_one_layer_gives_the_same_outputs(
    features: Matrix,
) -> None:
    head, some = WhitenedHead(nn.Linear(WIDTH, 3)), torch.from_numpy(features[:5]).float()
    head.measured(some).sum().backward()  # type: ignore[no-untyped-call]
    expected = -(some.T @ some)
    torch.testing.assert_close(head.moments.weight.grad, expected)
    with torch.no_grad():
        head.moments.weight.copy_(torch.from_numpy(moments(features)))
    head.take_over()
    assert not torch.allclose(head.whitener, torch.eye(WIDTH))
    torch.testing.assert_close(head.plain()(some), head(some), rtol=1e-4, atol=1e-5)


def test_a_study_whitens_only_where_one_linear_head_reads_pooled_features(make_study: Callable[..., Study]) -> None:
    whitened = make_study(training={"whitening": True})
    assert whitened.sha256 != make_study().sha256 and "whitening" not in make_study().canonical_json()
    assert Study.model_validate_json(whitened.canonical_json()) == whitened
    with pytest.raises(SettingsError, match="rounds of at least 2"):
        make_study(training={"whitening": True}, federation={"rounds": 1, "quorum": 1})
    with pytest.raises(SettingsError, match=r"training.whitening goes with .*, got 'token-classification'"):
        task = {"kind": "token-classification", "labels": ["O", "B-X"]}
        make_study(training={"whitening": True}, task=task)
